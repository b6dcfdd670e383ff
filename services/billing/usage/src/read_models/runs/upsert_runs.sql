-- Inserts or updates runs.
insert into runs (job_id, number, organization_id, user_id, configuration_id, machine_id, machine_type_id,
    started_at, ended_at, started_recorded_at, ended_recorded_at)
select * from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::uuid[], $5::uuid[], $6::uuid[], $7::uuid[],
    $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
on conflict (job_id, number) do update set user_id = excluded.user_id,
    configuration_id = excluded.configuration_id, machine_id = excluded.machine_id,
    machine_type_id = excluded.machine_type_id, started_at = excluded.started_at, ended_at = excluded.ended_at,
    started_recorded_at = excluded.started_recorded_at, ended_recorded_at = excluded.ended_recorded_at
