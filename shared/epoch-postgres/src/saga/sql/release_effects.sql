update saga_effects
set parked_at = null, attempts = 0, try_at = 0
where saga = $1 and instance = $2 and parked_at is not null
