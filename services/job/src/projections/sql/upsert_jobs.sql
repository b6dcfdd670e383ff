insert into jobs
select * from jsonb_populate_recordset(null::jobs, $1)
on conflict (id) do update set
    status      = excluded.status,
    machine_id  = excluded.machine_id,
    exit_code   = excluded.exit_code,
    reason      = excluded.reason,
    queued_at   = excluded.queued_at,
    started_at  = excluded.started_at,
    finished_at = excluded.finished_at,
    version     = excluded.version
