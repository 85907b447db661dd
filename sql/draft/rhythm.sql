-- One row: how the drafted interactions (the view `drafted`) repeat. All null where there is none.
-- repeat_share: of the pairs of user and item, those on more than one day; median_gap_days: between a user's active days.
-- span_days: between the first and the last day, without one event of a thousand at each end.
with days as (
    select distinct
        user_id,
        item_id,
        event_date,
    from drafted
    where user_id is not null and item_id is not null and event_date is not null and excluded_because is null
),

pairs as (
    select count(*) > 1 as is_repeated
    from days
    group by user_id, item_id
),

gaps as (
    select event_date - lag(event_date) over (partition by user_id order by event_date) as gap_days
    from (
        select distinct
            user_id,
            event_date,
        from days
    )
)

select
    (select avg(cast(is_repeated as integer)) from pairs) as repeat_share,
    (select median(gap_days) from gaps) as median_gap_days,
    (select quantile_disc(event_date, 0.999) - quantile_disc(event_date, 0.001) from days) as span_days,
