-- Files of one organization and status, newest first: ids are UUIDv7 and grow with time.
select id, organization_id, name, content_type, bytes, status, produced_by_job, created_at, completed_at, version
from files
where organization_id = $1 and status = $2 and id < $3
order by id desc
limit $4
