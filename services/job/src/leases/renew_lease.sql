update leases set expires_at = floor(extract(epoch from clock_timestamp()) * 1000) + $3
where job_id = $1 and machine_id = $2
