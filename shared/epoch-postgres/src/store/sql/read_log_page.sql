-- The settings of epoch_page keep the plan on the primary key.
select
    position, aggregate, aggregate_id, version, event_id, event_name, schema, payload, metadata, occurred_at, recorded_at
from epoch_page($1, $2, $3, $4, $5)
