-- One row per user, as the shop's customer list would deliver it: nothing here tells the taste.
-- key: user_id
select
    user_id,
    country,
    age,
    signup_date,
from planted_users
order by user_id
