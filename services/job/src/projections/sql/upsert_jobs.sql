insert into jobs (
    id, organization_id, job_configuration_id, name, command, timeout_ms, user_id, status, machine_id,
    exit_code, reason, created_at, queued_at, started_at, finished_at, version
)
select
    id, organization_id, job_configuration_id, name, command, timeout_ms, user_id, status, machine_id,
    exit_code, reason, created_at, queued_at, started_at, finished_at, version
from jsonb_populate_recordset(null::jobs, $1)
on conflict (id) do update set
    status      = excluded.status,
    machine_id  = excluded.machine_id,
    exit_code   = excluded.exit_code,
    reason      = excluded.reason,
    queued_at   = excluded.queued_at,
    started_at  = excluded.started_at,
    finished_at = excluded.finished_at,
    version     = excluded.version
