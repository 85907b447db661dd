-- One row per item of the synthetic shop with its planted truth. The other statements of this folder read it as the
-- table planted_items; tests read it as the right answer.
-- key: item_slot (item_slot % 12 is the category, item_slot // 12 the rank of popularity within it); item_id is unique
-- variables: items (count), days (length of the period), first_date (its first day), seed
--
-- Season: a share of each category's items sells by time of year (see categories), the others all year alike.
-- Launch: 70 % before first_date, 27 % spread over the period up to its last 14 days, 3 % in these (the cold items).
-- Retirement: 10 % of the items, save those launched in the last 180 days; retired_date is the first day without sales,
--   at least 60 days after both the launch and the first day.
-- Brand: any of 24, whatever the category; company = brand number % 6.
-- Material: one of the category's own two with 85 %, else any of the 24: a fact that tells the category of a cold item.
-- Catalogue: every second cold item is not catalogued yet: no category, no tags, no brand; only its facts speak for it.
-- Chance is hash() of (seed, slot, number of the draw), as a share in [0, 1): same DuckDB version, same shop.
with categories (
    category_index, category, winter_share, summer_share, christmas_share, typical_price, own_tags, own_materials
) as (
    values
    (0, 'coffee', 0.0, 0.0, 0.0, 12, ['espresso', 'filter', 'beans'], ['arabica', 'robusta']),
    (1, 'tea', 0.4, 0.0, 0.0, 9, ['green', 'herbal', 'loose leaf'], ['camellia', 'rooibos']),
    (2, 'books', 0.0, 0.0, 0.2, 18, ['novel', 'travel', 'history'], ['paper', 'linen']),
    (3, 'toys', 0.0, 0.0, 0.4, 25, ['building', 'plush', 'puzzle'], ['beech', 'felt']),
    (4, 'garden', 0.0, 0.6, 0.0, 30, ['seeds', 'pots', 'tools'], ['terracotta', 'zinc']),
    (5, 'ski', 0.8, 0.0, 0.0, 120, ['alpine', 'touring', 'goggles'], ['graphite', 'ash wood']),
    (6, 'running', 0.0, 0.2, 0.0, 80, ['shoes', 'trail', 'hydration'], ['mesh', 'foam']),
    (7, 'kitchen', 0.0, 0.0, 0.2, 40, ['knives', 'pans', 'baking'], ['cast iron', 'steel']),
    (8, 'skincare', 0.0, 0.3, 0.0, 22, ['sun', 'night', 'hands'], ['shea', 'aloe']),
    (9, 'pets', 0.0, 0.0, 0.0, 20, ['dog', 'cat', 'treats'], ['rope', 'salmon']),
    (10, 'games', 0.0, 0.0, 0.3, 45, ['board', 'cards', 'party'], ['cardboard', 'resin']),
    (11, 'stationery', 0.0, 0.0, 0.0, 8, ['pens', 'notebooks', 'ink'], ['brass', 'leather'])
),

names as (
    select
        [
            'Alder', 'Birke', 'Cedro', 'Dune', 'Elm', 'Fjell', 'Grove', 'Halden', 'Iver', 'Juniper', 'Kestrel',
            'Lark', 'Merle', 'Nordlys', 'Osprey', 'Pika', 'Quill', 'Rowan', 'Sorrel', 'Tern', 'Umber', 'Vesper',
            'Wren', 'Yarrow'
        ] as brands,
        [
            'Aurora Group', 'Boreal Holding', 'Cobalt Works', 'Delta Trade', 'Ember Brands', 'Fathom & Sons'
        ] as companies,
),

slots as (
    select
        range as item_slot,
        range % 12 as category_index,
        hash(xor(hash('items ' || getvariable('seed')), cast(range as ubigint))) as draw,
    from range(getvariable('items'))
),

draws as (
    select
        item_slot,
        category_index,
        [(hash(xor(draw, cast(number as ubigint))) >> 32) / 4294967296.0 for number in range(1, 15)] as chances,
    from slots
),

launches as (
    select
        item_slot,
        category_index,
        chances,
        chances[1] >= 0.97 as is_cold,
        cast(floor(chances[2] * 24) as integer) as brand_index,
        if(chances[3] < 0.85, category_index, cast(floor(chances[4] * 12) as bigint)) as material_category_index,
        getvariable('first_date') + case
            when chances[1] < 0.70 then -1 - cast(floor(chances[5] * 1000) as integer)
            when chances[1] < 0.97 then cast(floor(chances[5] * (getvariable('days') - 14)) as integer)
            else getvariable('days') - 14 + cast(floor(chances[5] * 14) as integer)
        end as launch_date,
    from draws
),

selling as (
    select
        *,
        (item_slot * 1000003 + 17) % getvariable('items') as item_number,
        greatest(launch_date, getvariable('first_date')) + 60 as earliest_retired_date,
        getvariable('first_date') + getvariable('days') as end_date,
    from launches
),

retirements as (
    select
        *,
        end_date - earliest_retired_date as retirement_days,
    from selling
)

select
    retirements.item_slot,
    format('i{:05d}', retirements.item_number) as item_id,
    retirements.item_number,
    retirements.category_index,
    categories.category,
    case
        when retirements.chances[6] < categories.winter_share then 'winter'
        when retirements.chances[6] < categories.winter_share + categories.summer_share then 'summer'
        when
            retirements.chances[6] < categories.winter_share + categories.summer_share + categories.christmas_share
            then 'christmas'
        else 'none'
    end as season,
    names.brands[retirements.brand_index + 1] as brand,
    retirements.brand_index % 6 as company_index,
    names.companies[retirements.brand_index % 6 + 1] as company,
    material_categories.own_materials[1 + cast(retirements.chances[7] < 0.5 as integer)] as material,
    retirements.launch_date,
    case
        when
            retirements.chances[8] < 0.10
            and retirements.launch_date < retirements.end_date - 180
            and retirements.earliest_retired_date < retirements.end_date
            then
                retirements.earliest_retired_date
                + cast(floor(retirements.chances[9] * retirements.retirement_days) as integer)
    end as retired_date,
    round(categories.typical_price * (0.5 + 1.5 * retirements.chances[10] * retirements.chances[10]), 2) as price,
    categories.own_tags[1 + cast(floor(retirements.chances[11] * 3) as integer)] as own_tag,
    ['gift', 'sale', 'organic', 'classic'][1 + cast(floor(retirements.chances[12] * 4) as integer)] as general_tag,
    retirements.chances[14] < 0.5 as has_season_tag,
    retirements.is_cold,
    retirements.is_cold and retirements.chances[13] < 0.5 as is_uncatalogued,
from retirements
inner join categories using (category_index)
inner join
    categories as material_categories
    on retirements.material_category_index = material_categories.category_index
cross join names
order by retirements.item_slot
