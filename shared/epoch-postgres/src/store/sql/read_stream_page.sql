-- At most $5 events and $6 bytes of payloads, but at least one event.
select
    position, aggregate, aggregate_id, version, event_id, event_name, schema, payload, metadata, occurred_at, recorded_at
from (
    select
        *,
        sum(octet_length(payload)) over (order by version rows unbounded preceding) - octet_length(payload)
            as preceding_bytes
    from events
    where aggregate_id = $1 and aggregate = $2 and version > $3 and version <= $4
    order by version limit $5
) page
where preceding_bytes < $6
order by version
