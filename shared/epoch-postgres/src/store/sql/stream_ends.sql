with recursive ids as (
    (select aggregate_id, 1::bigint as number from events where aggregate_id > $2 order by aggregate_id limit 1)
    union all
    select
        (select e.aggregate_id from events e where e.aggregate_id > ids.aggregate_id order by e.aggregate_id limit 1),
        number + 1
    from ids
    where ids.aggregate_id is not null and number < $3
)
select ids.aggregate_id, ends.version, ends.recorded_at
from ids
left join lateral (
    select version, recorded_at from events e
    where e.aggregate_id = ids.aggregate_id and e.aggregate = $1
    order by version desc limit 1
) ends on true
where ids.aggregate_id is not null
order by ids.number
