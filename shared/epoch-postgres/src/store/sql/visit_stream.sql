-- The bounds are subqueries to hide their values from the planner. For a large range it would read and sort the whole
-- stream, and return the first event only after the last was read.
select version, event_name, schema, payload
from events
where aggregate_id = $1 and aggregate = $2
    and version > (select $3::bigint) and version <= (select $4::bigint)
order by version
limit (select $5::bigint)
