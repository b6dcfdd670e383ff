select id, organization_id, queued_at
from jobs
where status = 'queued' and (queued_at, id) > ($1, $2)
order by queued_at, id
limit $3
