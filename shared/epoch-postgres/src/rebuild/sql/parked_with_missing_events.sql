select
    count(*) as parked,
    (array_agg(built.aggregate))[1] as first_aggregate,
    (array_agg(built.aggregate_id))[1] as first_aggregate_id
from cursors built
join cursors serving using (aggregate_id, aggregate)
where built.subscription = $2 and built.parked = 'failed'
    and serving.subscription = $1 and serving.version > built.version
