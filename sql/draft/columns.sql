-- One row per column of the temporary table `sample` that holds a value: what its values look like.
-- key: column_name
with cells as (
    select
        column_name,
        trim(value) as value,
    from (select cast(columns(*) as varchar) from sample) unpivot (value for column_name in (columns(*)))
    where trim(value) != ''
),

numbers as (
    select
        *,
        coalesce(
            try_cast(value as double),
            try_cast(replace(replace(value, '.', ''), ',', '.') as double)  -- a decimal comma
        ) as number,
    from cells
)

select
    column_name,
    count(*) as filled,
    count(distinct value) as "distinct",
    count(number) / count(*) as number_share,
    count(*) filter (try_cast(value as double) is null and number is not null) / count(*) as comma_share,
    count(*) filter (number = floor(number)) / count(*) as whole_share,
    min(number) as lowest,
    avg(length(value)) as mean_length,
    count(*) filter (contains(value, '|')) / count(*) as bar_share,
    count(*) filter (starts_with(value, '[') and ends_with(value, ']')) / count(*) as bracket_share,
    count(*) filter (contains(value, ' ') and not contains(value, '://')) / count(*) as words_share,
    count(*) filter (regexp_full_match(value, '\d+\.0')) / count(*) as point_zero_share,
from numbers
group by column_name
