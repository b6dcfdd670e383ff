select
    d.aggregate, d.aggregate_id, d.version, d.event_name, d.error, d.attempts, d.queued_at, c.parked,
    count(*) over (partition by d.aggregate_id, d.aggregate) as waiting
from cursors c
join dead_letters d using (subscription, aggregate_id, aggregate)
where c.subscription = $1 and c.parked is not null and d.skipped_at is null and d.version > c.version
order by d.aggregate_id, d.aggregate, d.version limit $2
