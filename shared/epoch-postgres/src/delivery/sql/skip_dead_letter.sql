update dead_letters
set skipped_at = $5
where subscription = $1 and aggregate_id = $2 and aggregate = $3 and version = $4
