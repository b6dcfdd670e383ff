-- One file of an organization, in any status.
select id, organization_id, name, content_type, bytes, status, produced_by_job, created_at, completed_at, version
from files
where id = $1 and organization_id = $2
