insert into states (aggregate_id, aggregate, version, schema, state)
values ($1, $2, $3, $4, $5)
on conflict (aggregate_id, aggregate) do update
set version = excluded.version, schema = excluded.schema, state = excluded.state
