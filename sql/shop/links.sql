-- One row per friendship, delivered once for the pair, the smaller id first.
-- key: user_id, other_user_id
-- Every user names 3 friends, each with 80 % somebody of the same first taste, else anybody: 82 % share a taste.
-- 30 % are undated, the others date from any day of the period, before or after the two signed up.
with nominations as (
    select
        range % getvariable('users') as user_slot,
        hash(xor(hash('links ' || getvariable('seed')), cast(range as ubigint))) as draw,
    from range(getvariable('users') * 3)
),

draws as (
    select
        user_slot,
        [(hash(xor(draw, cast(number as ubigint))) >> 32) / 4294967296.0 for number in range(1, 6)] as chances,
    from nominations
),

pairs as (
    select
        user_slot,
        chances,
        -- users of one taste have slots with the same remainder by 12
        case
            when chances[1] < 0.80
                then user_slot % 12 + 12 * cast(floor(chances[2] * (getvariable('users') // 12)) as bigint)
            else cast(floor(chances[2] * getvariable('users')) as bigint)
        end as friend_slot,
    from draws
),

friendships as (
    select
        least(planted_users.user_id, friends.user_id) as user_id,
        greatest(planted_users.user_id, friends.user_id) as other_user_id,
        max(round(0.2 + 0.8 * pairs.chances[3], 2)) as strength,
        min(
            case
                when pairs.chances[4] >= 0.30
                    then getvariable('first_date') + cast(floor(pairs.chances[5] * getvariable('days')) as integer)
            end
        ) as since,
    from pairs
    inner join planted_users using (user_slot)
    inner join planted_users as friends on pairs.friend_slot = friends.user_slot
    where pairs.user_slot != pairs.friend_slot
    group by all
)

select
    user_id,
    other_user_id,
    'friend' as relation,
    strength,
    since,
from friendships
order by user_id, other_user_id
