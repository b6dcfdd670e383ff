select
    s.instance,
    s.phase,
    (select count(*) from saga_timers t where t.saga = s.saga and t.instance = s.instance) as timers,
    (select count(*) from saga_effects e where e.saga = s.saga and e.instance = s.instance) as effects,
    coalesce(
        (
            select t.error from saga_timers t
            where t.saga = s.saga and t.instance = s.instance and t.parked_at is not null limit 1
        ),
        (
            select e.error from saga_effects e
            where e.saga = s.saga and e.instance = s.instance and e.parked_at is not null limit 1
        )
    ) as parked
from sagas s
where s.saga = $1 and s.instance = $2
