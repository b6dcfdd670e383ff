select r.range_number, e.version, e.event_name, e.schema, e.payload
from unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[])
    with ordinality as r (id, aggregate, after, up_to, range_number),
lateral (
    select
        *,
        sum(octet_length(payload)) over (order by version rows unbounded preceding) - octet_length(payload)
            as preceding_bytes
    from (
        select version, event_name, schema, payload from events
        where aggregate_id = r.id and aggregate = r.aggregate and version > r.after and version <= r.up_to
        order by version limit $5
    ) as first_events
) as e
where e.preceding_bytes < $6
