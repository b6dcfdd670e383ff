delete from leases
where job_id = $1 and expires_at <= floor(extract(epoch from clock_timestamp()) * 1000)
returning job_id, machine_id, expires_at
