select version
from cursors
where subscription = coalesce(
        (select key from generations where subscription = $1 and state = 'serving'), $1
    )
    and aggregate_id = $2 and aggregate = $3
