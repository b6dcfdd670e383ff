select
    id, organization_id, job_configuration_id, name, command, timeout_ms, user_id, status, machine_id,
    exit_code, reason, created_at, queued_at, started_at, finished_at, version
from jobs
where organization_id = $1 and id < $2 and status = $4
order by id desc
limit $3
