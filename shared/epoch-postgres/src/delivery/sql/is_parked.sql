select exists (
    select from cursors where subscription = $1 and aggregate_id = $2 and aggregate = $3 and parked is not null
) as is_parked
