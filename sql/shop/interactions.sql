-- One row per event, as the shop's log would deliver it: the exploring events by day, then their repeats.
-- key: event_id
-- variables: users, items, days, first_date, seed; reads planted_users and planted_items; streams (no sort, no window)
--
-- The planted truth. Proposals are drawn by hash() of (seed, proposal) and thinned by rejection. Those kept are the
-- exploring events:
--   users      0.4 proposals a user and day; the user's rank as a share x = r / (11 - 10 r), r uniform, has the density
--              0.11 / (x + 0.1)^2: the busiest tenth makes 55 % of them, the last 2 % of the ranks none
--   items      75 % from the user's taste of that day, else from any category; within it the same long tail of ranks
--   brands     of the items of other companies than the user's favourite half are kept
--   week       of weekdays 60 % are kept, of Saturdays and Sundays all
--   year       kept by season: none 0.5, others 0.02 + 0.98 exp(k (cos(2 pi (day of year - peak) / 365.25) - 1)) with
--              winter k = 3, peak 15 January; summer k = 3, peak 16 July; christmas k = 40, peak 15 December
--   lifetimes  only from sign-up on, from launch on and before retirement
--   types      view 70 %, cart 18 %, purchase 12 %
-- Repeats: every event of type e, exploring or itself a repeat, brings Poisson(q) (cut at 3) events of the same user,
-- item and type after exponential delays of half-life h, in any season, until retirement or the end of the period:
--   view q = 0.35, h = 3 days; cart q = 0.25, h = 10 days; purchase q = 0.45, h = 45 days
-- So the hazard of a repeat of type e for (user, item) at time T is, summed over all their past events of type e,
--   q ln 2 / h * 2^(-age / h), age = T - t in days.
-- The log is not clean: 0.5 % of the rows have no user (not signed in), 1 in 10,000 no item (broken).
-- event_id is e<proposal>.<path>: path 0 explores, child n = 1..3 of path p is 4 p + n, so the parent is path // 4.
with recursive proposals as (
    select
        range as proposal,
        hash(xor(hash('interactions ' || getvariable('seed')), cast(range as ubigint))) as draw,
        getvariable('first_date') + cast(range // (getvariable('users') * 2 // 5) as integer) as visit_date,
    from range(getvariable('days') * (getvariable('users') * 2 // 5))
),

chances as (
    select
        proposal,
        draw,
        visit_date,
        (hash(xor(draw, 1)) >> 32) / 4294967296.0 as user_chance,
        (hash(xor(draw, 2)) >> 32) / 4294967296.0 as taste_chance,
        (hash(xor(draw, 3)) >> 32) / 4294967296.0 as second_taste_chance,
        (hash(xor(draw, 4)) >> 32) / 4294967296.0 as item_chance,
        (hash(xor(draw, 5)) >> 32) / 4294967296.0 as keep_chance,
        (hash(xor(draw, 6)) >> 32) / 4294967296.0 as type_chance,
        (hash(xor(draw, 7)) >> 32) / 4294967296.0 as early_chance,
        (hash(xor(draw, 8)) >> 32) / 4294967296.0 as late_chance,
    from proposals
    where isodow(visit_date) >= 6 or (hash(xor(draw, 9)) >> 32) / 4294967296.0 < 0.6
),

visits as (
    select
        chances.*,
        planted_users.user_slot,
        planted_users.company_index,
        case
            when chances.taste_chance >= 0.75 then cast(floor((chances.taste_chance - 0.75) * 48) as bigint)
            when planted_users.second_taste_index is null then planted_users.taste_index
            when planted_users.taste_change_date is null
                then if(chances.second_taste_chance < 0.6, planted_users.taste_index, planted_users.second_taste_index)
            when chances.visit_date < planted_users.taste_change_date then planted_users.taste_index
            else planted_users.second_taste_index
        end as category_index,
    from chances
    inner join
        planted_users
        on
            cast(floor(0.98 * getvariable('users') * chances.user_chance / (11 - 10 * chances.user_chance)) as bigint)
            = planted_users.user_slot
    where chances.visit_date >= planted_users.signup_date
),

looks as (
    select
        visits.*,
        planted_items.item_slot,
        planted_items.retired_date,
        case planted_items.season
            when 'winter'
                then 0.02 + 0.98 * exp(3 * (cos(2 * pi() * (dayofyear(visits.visit_date) - 15) / 365.25) - 1))
            when 'summer'
                then 0.02 + 0.98 * exp(3 * (cos(2 * pi() * (dayofyear(visits.visit_date) - 197) / 365.25) - 1))
            when 'christmas'
                then 0.02 + 0.98 * exp(40 * (cos(2 * pi() * (dayofyear(visits.visit_date) - 349) / 365.25) - 1))
            else 0.5
        end * if(visits.company_index = planted_items.company_index, 1.0, 0.5) as keep_share,
    from visits
    inner join
        planted_items
        on
            visits.category_index + 12 * cast(
                floor(ceil(getvariable('items') / 12) * visits.item_chance / (11 - 10 * visits.item_chance)) as bigint
            )
            = planted_items.item_slot
    where
        visits.visit_date >= planted_items.launch_date
        and (planted_items.retired_date is null or visits.visit_date < planted_items.retired_date)
),

types (event_type, repeats_per_event, half_life_days) as (
    values
    ('view', 0.35, 3),
    ('cart', 0.25, 10),
    ('purchase', 0.45, 45)
),

-- the n-th of Poisson(q) children exists with the chance 1 - e^-q (1 + q + .. + q^(n-1) / (n-1)!)
children as (
    select
        types.event_type,
        types.half_life_days,
        cast(unnest([1, 2, 3]) as ubigint) as child,
        unnest([
            1 - exp(-types.repeats_per_event),
            1 - exp(-types.repeats_per_event) * (1 + types.repeats_per_event),
            1 - exp(-types.repeats_per_event)
            * (1 + types.repeats_per_event + types.repeats_per_event * types.repeats_per_event / 2)
        ]) as existence_share,
    from types
),

events as (
    select
        proposal,
        cast(0 as ubigint) as path,
        draw,
        user_slot,
        item_slot,
        case
            when type_chance < 0.70 then 'view'
            when type_chance < 0.88 then 'cart'
            else 'purchase'
        end as event_type,
        -- the clock time is the mean of two draws between 6 and 24 o'clock
        visit_date
        + to_microseconds(cast(86400e6 * (0.25 + 0.375 * (early_chance + late_chance)) as bigint)) as occurred_at,
        coalesce(retired_date, getvariable('first_date') + getvariable('days')) as end_date,
    from looks
    where keep_chance < keep_share
    union all
    select
        proposal,
        path,
        draw,
        user_slot,
        item_slot,
        event_type,
        occurred_at,
        end_date,
    from (
        select
            events.proposal,
            events.path * 4 + children.child as path,
            hash(xor(events.draw, 20 + children.child)) as draw,
            events.user_slot,
            events.item_slot,
            events.event_type,
            -- 1 - chance is in (0, 1], so the logarithm is finite
            events.occurred_at + to_microseconds(cast(
                -86400e6 * children.half_life_days
                * log2(1 - (hash(xor(events.draw, 30 + children.child)) >> 32) / 4294967296.0)
                as bigint
            )) as occurred_at,
            events.end_date,
        from events
        inner join
            children
            on
                events.event_type = children.event_type
                and (hash(xor(events.draw, 10)) >> 32) / 4294967296.0 < children.existence_share
    ) as repeats
    where occurred_at < end_date
)

select
    format('e{:d}.{:d}', events.proposal, events.path) as event_id,
    case when (hash(xor(events.draw, 40)) >> 32) / 4294967296.0 >= 0.005 then planted_users.user_id end as user_id,
    case when (hash(xor(events.draw, 41)) >> 32) / 4294967296.0 >= 0.0001 then planted_items.item_id end as item_id,
    events.event_type,
    events.occurred_at,
    case when events.event_type = 'purchase' then planted_items.price end as price,
from events
inner join planted_users using (user_slot)
inner join planted_items using (item_slot)
