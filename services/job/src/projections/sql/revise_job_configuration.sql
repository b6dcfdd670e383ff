update job_configurations set updated_at = $2, version = $3, name = $4, command = $5, timeout_ms = $6 where id = $1
