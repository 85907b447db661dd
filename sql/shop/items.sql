-- One row per item, as the shop's catalogue would deliver it (see planted_items for what is planted).
-- key: item_id
-- Half of the seasonal items carry their season as a tag.
select
    item_id,
    case when not is_uncatalogued then brand || ' ' || item_number end as name,
    case when not is_uncatalogued then category end as category,
    case when not is_uncatalogued then brand end as brand,
    case
        when is_uncatalogued then null
        when season != 'none' and has_season_tag then [own_tag, general_tag, season]
        else [own_tag, general_tag]
    end as tags,
    price,
    launch_date,
    retired_date,
from planted_items
order by item_id
