update dead_letters
set error = $5, attempts = attempts + 1
where subscription = $1 and aggregate_id = $2 and aggregate = $3 and version = $4
