-- A claim that is about to lose its race meets the winner's lease here, and must get as far as the commit to be told so.
insert into leases (job_id, machine_id, expires_at)
values ($1, $2, floor(extract(epoch from clock_timestamp()) * 1000) + $3)
on conflict (job_id) do nothing
