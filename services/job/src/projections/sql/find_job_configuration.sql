select id, name, command, timeout_ms, retired, created_at, updated_at, version
from job_configurations
where organization_id = $1 and id = $2
