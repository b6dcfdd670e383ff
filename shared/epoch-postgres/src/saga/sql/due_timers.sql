select id, instance, timer, due_at, attempts
from saga_timers
where saga = $1 and try_at <= $2 and parked_at is null
order by try_at limit $3
