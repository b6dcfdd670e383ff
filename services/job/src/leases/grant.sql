insert into leases (job_id, machine_id, expires_at)
values ($1, $2, floor(extract(epoch from clock_timestamp()) * 1000) + $3)
