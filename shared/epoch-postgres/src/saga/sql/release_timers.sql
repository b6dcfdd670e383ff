update saga_timers
set parked_at = null, attempts = 0, try_at = due_at
where saga = $1 and instance = $2 and parked_at is not null
