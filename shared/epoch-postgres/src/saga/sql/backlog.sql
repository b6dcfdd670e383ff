select
    (
        select count(*) from (
            select from saga_timers where saga = $1 and parked_at is null and try_at <= $2 limit $3
        ) t
    ) as due_timers,
    (select count(*) from (select from saga_effects where saga = $1 and parked_at is null limit $3) e) as effects,
    (
        select count(*) from (select from saga_timers where saga = $1 and parked_at is not null limit $3) t
    ) as parked_timers,
    (
        select count(*) from (select from saga_effects where saga = $1 and parked_at is not null limit $3) e
    ) as parked_effects
