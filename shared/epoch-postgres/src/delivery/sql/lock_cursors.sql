select c.aggregate, c.aggregate_id, c.version, c.parked
from epoch_enter($1, $4, $5) as key, lateral epoch_lock(key, $2, $3) c
