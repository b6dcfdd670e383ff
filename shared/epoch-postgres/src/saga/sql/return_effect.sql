update saga_effects
set try_at = $3, error = $4, parked_at = $5
where number = $1 and attempts = $2
