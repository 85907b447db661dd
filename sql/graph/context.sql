-- One row per series, day and version of its value; a day ahead of as_of has an age of 0 or below.
-- key: series, day_age_days, known_age_days
-- known_age_days is at least 1; null = known for ever.
select
    series,
    cast(getvariable('as_of') - context_date as integer) as day_age_days,
    cast(getvariable('as_of') - known_since as integer) as known_age_days,
    value,
from staging.context
order by series, day_age_days, known_age_days
