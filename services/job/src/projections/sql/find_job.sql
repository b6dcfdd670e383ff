select
    j.id, j.organization_id, j.job_configuration_id, j.name, j.command, j.timeout_ms, j.user_id, j.status, j.machine_id,
    j.exit_code, j.reason, j.created_at, j.queued_at, j.started_at, j.finished_at, j.version,
    array(select file_id from job_files where job_id = j.id and role = 'input' order by file_id) as input_file_ids,
    array(select file_id from job_files where job_id = j.id and role = 'output' order by file_id) as output_file_ids
from jobs j
where j.organization_id = $1 and j.id = $2
