-- The snapshot, and the first events from the snapshot's own last event on. A snapshot is seldom older than its policy
-- allows, so these are usually all.
select version, null as event_name, schema, state as bytes
from snapshots
where aggregate_id = $1 and aggregate = $2
union all
(
    select version, event_name, schema, payload
    from events
    where aggregate_id = $1 and aggregate = $2
        and version >= (select version from snapshots where aggregate_id = $1 and aggregate = $2)
    order by version limit $3
)
