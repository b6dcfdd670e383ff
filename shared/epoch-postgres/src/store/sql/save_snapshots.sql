insert into snapshots (aggregate_id, aggregate, version, schema, state)
select aggregate_id, aggregate, version, schema, state
from unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bytea[])
    as s (aggregate_id, aggregate, version, schema, state)
on conflict (aggregate_id, aggregate) do update
set version = excluded.version, schema = excluded.schema, state = excluded.state
where snapshots.version <= excluded.version
