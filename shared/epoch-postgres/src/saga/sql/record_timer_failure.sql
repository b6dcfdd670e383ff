update saga_timers
set attempts = attempts + 1, error = $2, try_at = $3, parked_at = $4
where id = $1
