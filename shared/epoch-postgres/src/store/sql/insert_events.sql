with locked as materialized (
    select
        pg_advisory_xact_lock((1162891075::bigint << 32) | 'events'::regclass::oid::bigint),
        floor(extract(epoch from clock_timestamp()) * 1000)::bigint as recorded_at
)
insert into events (
    aggregate, aggregate_id, version, event_id, event_name, schema, payload, metadata, occurred_at, recorded_at
)
select
    a.aggregate, a.id, a.expected + 1, a.event_id, a.name, a.schema, a.payload, a.metadata::json, a.occurred_at,
    locked.recorded_at
from locked, unnest(
    $1::text[], $2::uuid[], $3::bigint[], $4::uuid[], $5::uuid[], $6::text[], $7::bigint[], $8::bytea[], $9::text[],
    $10::bigint[]
) as a (aggregate, id, expected, previous, event_id, name, schema, payload, metadata, occurred_at)
where a.expected = 0 or (
    select true from events p
    where p.aggregate_id = a.id and p.aggregate = a.aggregate and p.version = a.expected
        and (a.previous is null or p.event_id = a.previous)
)
on conflict do nothing
returning event_id, position, recorded_at
