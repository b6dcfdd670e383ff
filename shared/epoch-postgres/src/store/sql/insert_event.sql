with locked as materialized (
    select
        pg_advisory_xact_lock((1162891075::bigint << 32) | 'events'::regclass::oid::bigint),
        floor(extract(epoch from clock_timestamp()) * 1000)::bigint as recorded_at
)
insert into events (
    aggregate, aggregate_id, version, event_id, event_name, schema, payload, metadata, occurred_at, recorded_at
)
select $1, $2, $3 + 1, $5, $6, $7, $8, $9::json, $10, locked.recorded_at
from locked
where $3::bigint = 0 or (
    select true from events p
    where p.aggregate_id = $2 and p.aggregate = $1 and p.version = $3::bigint
        and ($4::uuid is null or p.event_id = $4::uuid)
)
on conflict do nothing
returning event_id, position, recorded_at
