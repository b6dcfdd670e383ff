insert into job_configurations (
    id, created_at, updated_at, version, name, command, timeout_ms, organization_id, retired
) values ($1, $2, $2, $3, $4, $5, $6, $7, false)
