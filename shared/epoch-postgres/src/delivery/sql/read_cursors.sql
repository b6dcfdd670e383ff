select c.aggregate_id, c.version, c.parked
from unnest($3::uuid[]) as u (id)
cross join lateral (
    select aggregate_id, version, parked
    from cursors
    where subscription = coalesce(
            (select key from generations where subscription = $1 and state = 'serving'), $1
        )
        and aggregate_id = u.id and aggregate = $2
) c
