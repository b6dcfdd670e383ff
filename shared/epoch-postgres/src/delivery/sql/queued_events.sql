select
    position, aggregate, aggregate_id, version, event_id, event_name, schema, payload, metadata, occurred_at, recorded_at
from dead_letters
where subscription = $1 and aggregate_id = $2 and aggregate = $3 and version > $4 and skipped_at is null
order by version limit $5
