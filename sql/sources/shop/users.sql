-- One row per row of the shop's customer list (users*.parquet in the input folder).
-- key: source_file, source_row
-- A customer is known from the day of the sign-up, which also serves as a feature (an age).
with customers as (
    select
        user_id,
        country,
        age,
        signup_date,
        filename,
        file_row_number,
    from read_parquet(getvariable('input') || '/users*.parquet', filename = true, file_row_number = true)
)

select
    user_id,
    signup_date as valid_from,
    country,
    age,
    signup_date,
    cast(null as varchar) as excluded_because,
    case when age < 0 then cast(to_json(struct_pack(user_id, country, age)) as varchar) end as raw_text,
    parse_filename(filename) as source_file,
    file_row_number as source_row,
from customers
