insert into dead_letters (
    subscription, aggregate_id, aggregate, version, position, event_id, event_name, schema, payload, metadata,
    occurred_at, recorded_at, error, attempts, queued_at
)
select
    $1, e.aggregate_id, e.aggregate, e.version, e.position, e.event_id, e.event_name, e.schema, e.payload,
    e.metadata::json, e.occurred_at, e.recorded_at, $2, $3, $4
from unnest(
    $5::uuid[], $6::text[], $7::bigint[], $8::bigint[], $9::uuid[], $10::text[], $11::bigint[], $12::bytea[],
    $13::text[], $14::bigint[], $15::bigint[]
) as e (
    aggregate_id, aggregate, version, position, event_id, event_name, schema, payload, metadata, occurred_at,
    recorded_at
)
on conflict do nothing
