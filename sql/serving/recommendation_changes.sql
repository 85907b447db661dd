-- What changed from the date before to the newest one: one row per list, user and item that entered, left or moved.
-- Two halves, so that a user_id asked for reaches the tables; a full join would keep it out.
with newest as not materialized (
    select *
    from recommendations
    where as_of = (select max(as_of) from runs)
),

previous as not materialized (
    select *
    from recommendations
    where as_of = (select max(previous_as_of) from runs)
)

select
    newest.as_of,
    (select max(previous_as_of) from runs) as previous_as_of,
    newest.list,
    newest.user_id,
    newest.item_id,
    case when previous.item_id is null then 'entered' else 'moved' end as change,
    previous.rank as previous_rank,
    newest.rank
from newest
left join previous
    on newest.list = previous.list and newest.user_id = previous.user_id and newest.item_id = previous.item_id
where previous.item_id is null or previous.rank != newest.rank
union all
select
    (select max(as_of) from runs) as as_of,
    previous.as_of as previous_as_of,
    previous.list,
    previous.user_id,
    previous.item_id,
    'left' as change,
    previous.rank as previous_rank,
    null as rank
from previous
left join newest
    on previous.list = newest.list and previous.user_id = newest.user_id and previous.item_id = newest.item_id
where newest.item_id is null
