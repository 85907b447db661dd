-- One row per user known before as_of, with the newest attributes known by then.
-- known_at: only rows that had arrived before that time and were not replaced by then; 'infinity': all known now.
-- Without a date of its own, a user is known from the first event on.
-- key: user_id
with versions as (
    select *
    from raw.users
    where
        loaded_at < getvariable('known_at')
        and coalesce(superseded_at, timestamp 'infinity') >= getvariable('known_at')
        and excluded_because is null
        and (valid_from is null or valid_from < getvariable('as_of'))
),

attributes as (
    select
        user_id,
        * exclude (user_id, valid_from, excluded_because, source_file, source_row, loaded_at, superseded_at),
    from versions
    qualify
        row_number() over (
            partition by user_id order by valid_from desc nulls last, loaded_at desc, source_file desc, source_row desc
        ) = 1
),

known as (
    select
        user_id,
        min(valid_from) as valid_from,
    from (
        select
            user_id,
            valid_from,
        from versions
        where valid_from is not null
        union all
        select
            user_id,
            event_date as valid_from,
        from staging.interactions
    )
    group by user_id
)

select
    known.user_id,
    known.valid_from,
    attributes.* exclude (user_id),
from known
left join attributes using (user_id)
