-- Runs that started or ended in a span.
select * from runs where organization_id = $1 and started_at >= $2 and started_at < $3
union
select * from runs where organization_id = $1 and ended_at >= $2 and ended_at < $3
limit $4
