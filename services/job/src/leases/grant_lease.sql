-- A claim that conflicts with another one can meet the other claim's lease here. It must reach the commit, which reports the
-- conflict; a unique violation would hide it.
insert into leases (job_id, machine_id, expires_at)
values ($1, $2, floor(extract(epoch from clock_timestamp()) * 1000) + $3)
on conflict (job_id) do nothing
