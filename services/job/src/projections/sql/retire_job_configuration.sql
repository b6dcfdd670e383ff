update job_configurations set updated_at = $2, version = $3, retired = true where id = $1
