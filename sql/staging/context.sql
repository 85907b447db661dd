-- One row per day, series and version known before as_of; known_since = null: known for ever, as the dates of holidays are.
-- known_at: only rows that had arrived before that time and were not replaced by then; 'infinity': all known now.
-- key: context_date, series, known_since
-- Of rows that share the key, the newest delivery counts, then the last file and row.
select
    context_date,
    series,
    known_since,
    value,
from raw.context
where
    loaded_at < getvariable('known_at')
    and coalesce(superseded_at, timestamp 'infinity') >= getvariable('known_at')
    and excluded_because is null
    and (known_since is null or known_since < getvariable('as_of'))
qualify
    row_number() over (
        partition by context_date, series, known_since
        order by loaded_at desc, source_file desc, source_row desc
    ) = 1
