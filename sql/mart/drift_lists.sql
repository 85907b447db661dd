-- One row per list and measure: the lists of as_of beside those of the publication before it.
-- key: list, name
-- kept_share: of a user's rows, those already listed before; rank_overlap: rank-biased overlap of a user's two lists
-- (Webber et al. 2010, p = 0.9, extrapolated to the depth of the new one); both are means over users with both lists.
-- score_shift: the largest distance between the two distributions of scores (Kolmogorov-Smirnov). units: users.
-- is_other_model: most rows come from another ranker than before, so that the lists differ by decision.
with previous_date as (
    select max(as_of) as as_of
    from query_table(getvariable('publications'))
    where as_of < getvariable('as_of')
),

lists as (
    select *
    from mart.recommendations
    where as_of = getvariable('as_of')
),

earlier as (
    select recommendations.*
    from mart.recommendations
    semi join previous_date using (as_of)
),

models as (
    select
        list,
        count(distinct user_id) as units,
        mode(model order by model) as model,
        quantile_disc(score, [0.1, 0.5, 0.9]) as tenths,
    from lists
    group by list
),

earlier_models as (
    select
        list,
        mode(model order by model) as model,
    from earlier
    group by list
),

live as (
    select count(*) as items
    from staging.items
    where valid_from < getvariable('as_of') and (valid_to is null or valid_to >= getvariable('as_of'))
),

listings as (
    select
        list,
        item_id,
        count(*) as listed,
        row_number() over (partition by list order by count(*) desc, item_id) as place,
    from lists
    group by list, item_id
),

reach as (
    select
        list,
        sum(listed) filter (where place <= 10) / sum(listed) as top_10_share,
        count(*) as items,
    from listings
    group by list
),

depths as (
    select
        list,
        user_id,
        max(rank) as depth,
    from lists
    semi join earlier using (list, user_id)
    group by list, user_id
),

steps as (
    select unnest(range(1, (select max(depth) + 1 from depths))) as depth
),

tails as (  -- (1 - p) / p times the sum of p^d / d for d = rank .. depth: what an item shared from that rank on adds
    select
        firsts.depth as rank,
        lasts.depth,
        sum(power(0.9, steps.depth) / steps.depth) * 0.1 / 0.9 as tail,
    from steps as firsts
    inner join steps as lasts on firsts.depth <= lasts.depth
    inner join steps on firsts.depth <= steps.depth and lasts.depth >= steps.depth
    group by firsts.depth, lasts.depth
),

shared as (
    select
        lists.list,
        lists.user_id,
        count(*) as kept,
        sum(tails.tail) as tail,
    from lists
    inner join depths using (list, user_id)
    inner join earlier using (list, user_id, item_id)
    inner join tails on depths.depth = tails.depth and greatest(lists.rank, earlier.rank) = tails.rank
    group by lists.list, lists.user_id
),

overlap as (
    select
        list,
        avg(coalesce(kept, 0) / depth) as kept_share,
        avg(coalesce(kept / depth * power(0.9, depth) + tail, 0)) as rank_overlap,
    from depths
    left join shared using (list, user_id)
    group by list
),

scores as (
    select
        list,
        score,
        count(*) filter (where is_new) as new_rows,
        count(*) filter (where not is_new) as old_rows,
    from (
        select
            list,
            score,
            true as is_new,
        from lists
        union all
        select
            list,
            score,
            false as is_new,
        from earlier
    )
    group by list, score
),

cumulated as (
    select
        list,
        sum(new_rows) over so_far / sum(new_rows) over (partition by list) as new_share,
        sum(old_rows) over so_far / nullif(sum(old_rows) over (partition by list), 0) as old_share,
    from scores
    window so_far as (partition by list order by score)
),

shifts as (
    select
        list,
        max(abs(new_share - old_share)) as score_shift,
    from cumulated
    group by list
),

measured as (
    select
        models.list,
        models.units,
        coalesce(earlier_models.model != models.model, true) as is_other_model,
        cast(getvariable('as_of') - previous_date.as_of as double) as days_since_previous,
        reach.items / nullif(live.items, 0) as coverage,
        cast(reach.top_10_share as double) as top_10_share,
        overlap.kept_share,
        overlap.rank_overlap,
        cast(shifts.score_shift as double) as score_shift,
        cast(models.tenths[1] as double) as score_p10,
        cast(models.tenths[2] as double) as score_p50,
        cast(models.tenths[3] as double) as score_p90,
    from models
    cross join previous_date
    cross join live
    inner join reach using (list)
    left join earlier_models using (list)
    left join overlap using (list)
    left join shifts using (list)
),

named as (
    unpivot measured
    on columns(* exclude (list, units, is_other_model)) into name name value value
)

select
    list,
    name,
    value,
    units,
    is_other_model,
from named
order by list desc, name
