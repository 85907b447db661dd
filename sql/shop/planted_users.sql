-- One row per user of the synthetic shop with its planted truth. The other statements of this folder read it as the
-- table planted_users; tests read it as the right answer.
-- key: user_slot (the rank of activity); user_id is unique
-- variables: users (count), days (length of the period), first_date (its first day), seed
--
-- Taste: a category, evenly spread. 40 % of the users have this one; 35 % a second one besides (chosen 60 : 40);
--   25 % leave the first for the second on taste_change_date, in the middle three fifths of the period.
-- Company: a favourite among 6, evenly spread; at other companies' items the user looks half as often.
-- Sign-up: half before first_date, 48 % spread over the period up to its last 7 days, 2 % in these (the cold users).
-- Silence: the last 2 % of the slots never come (the silent users).
-- Country and age say nothing about taste: friends do (see links).
with slots as (
    select
        range as user_slot,
        hash(xor(hash('users ' || getvariable('seed')), cast(range as ubigint))) as draw,
    from range(getvariable('users'))
),

draws as (
    select
        user_slot,
        user_slot % 12 as taste_index,
        [(hash(xor(draw, cast(number as ubigint))) >> 32) / 4294967296.0 for number in range(1, 11)] as chances,
    from slots
)

select
    user_slot,
    format('u{:06d}', (user_slot * 1000003 + 29) % getvariable('users')) as user_id,
    taste_index,
    case
        when chances[1] >= 0.40 then (taste_index + 1 + cast(floor(chances[2] * 11) as bigint)) % 12
    end as second_taste_index,
    case
        when chances[1] >= 0.75
            then getvariable('first_date') + cast(floor(getvariable('days') * (0.2 + 0.6 * chances[3])) as integer)
    end as taste_change_date,
    cast(floor(chances[4] * 6) as bigint) as company_index,
    getvariable('first_date') + case
        when chances[5] < 0.50 then -1 - cast(floor(chances[6] * 1000) as integer)
        when chances[5] < 0.98 then cast(floor(chances[6] * (getvariable('days') - 7)) as integer)
        else getvariable('days') - 7 + cast(floor(chances[6] * 7) as integer)
    end as signup_date,
    chances[5] >= 0.98 as is_cold,
    user_slot >= floor(0.98 * getvariable('users')) as is_silent,
    ['DE', 'FR', 'ES', 'PL', 'NL', 'SE'][1 + cast(floor(chances[10] * chances[10] * 6) as integer)] as country,
    case when chances[9] >= 0.05 then 18 + cast(floor(31 * (chances[7] + chances[8])) as integer) end as age,
from draws
order by user_slot
