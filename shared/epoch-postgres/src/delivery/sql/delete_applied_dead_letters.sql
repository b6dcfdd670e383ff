delete from dead_letters
where subscription = $1 and aggregate_id = $2 and aggregate = $3 and version <= $4 and skipped_at is null
