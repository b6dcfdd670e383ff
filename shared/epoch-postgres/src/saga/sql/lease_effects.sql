update saga_effects
set attempts = attempts + 1, try_at = $3
where number = any(array(
    select e.number from saga_effects e
    where e.saga = $1 and e.try_at <= $2 and e.parked_at is null
        and not exists (
            select from saga_effects earlier
            where earlier.saga = e.saga and earlier.instance = e.instance and earlier.number < e.number
        )
    order by e.try_at limit $4
    for update skip locked
))
returning
    number, id, instance, effect, attempts,
    (
        select s.origin::text from sagas s
        where s.saga = saga_effects.saga and s.instance = saga_effects.instance
    ) as origin
