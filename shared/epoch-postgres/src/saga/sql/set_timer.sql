insert into saga_timers (id, saga, instance, timer, due_at, try_at)
values ($1, $2, $3, $4, $5, $5)
on conflict (saga, instance, timer) do update
set id = $1, due_at = $5, try_at = $5, attempts = 0, error = null, parked_at = null
