select aggregate_id
from cursors
where subscription = coalesce(
        (select key from generations where subscription = $1 and state = 'serving'), $1
    )
    and aggregate_id < $3 and aggregate = $2 and version > 0
order by aggregate_id desc limit 1
