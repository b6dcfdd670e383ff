select number, headers, body, aggregate
from epoch_bus.messages
where number > $1 and aggregate = any($2)
order by number limit $3
