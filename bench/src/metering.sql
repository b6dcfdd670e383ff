-- A year of an organization: which one, how many events, the first instant, in how many days.
-- All of it goes through the functions that the projections themselves use. Work is done from 8 to 18 o'clock UTC.
create function bench_year(organization uuid, events integer, first bigint, days integer) returns void language plpgsql
set client_min_messages = warning
as $$
begin
    create temporary table if not exists bench_files (file_id uuid, at bigint, deleted_at bigint, bytes bigint);
    create temporary table if not exists bench_jobs (job_id uuid, user_id uuid, started_at bigint, ended_at bigint);
    truncate bench_files, bench_jobs;

    -- Of twenty events, eleven are of files: seven are stored, four of these deleted again, a month later on average.
    insert into bench_files
    select gen_random_uuid(), f.at, case when f.n % 7 < 4 then f.at + (random() * 60 * 86400000)::bigint end,
        (random() * 10000000000)::bigint + 1
    from (
        select n, first + (random() * days)::bigint * 86400000 + 28800000 + (random() * 36000000)::bigint as at
        from generate_series(1, events * 7 / 20) n
    ) f;
    perform metering_storage_add(array_agg(organization), array_agg(c.file_id), array_agg(c.at), array_agg(c.delta),
        array_agg(c.at + 50))
    from (
        select file_id, at, bytes as delta from bench_files
        union all
        select file_id, deleted_at, -bytes from bench_files where deleted_at is not null
    ) c;

    -- Nine are of jobs: created, linked to a file, started, ended; a job of ten users and five configurations.
    insert into bench_jobs
    select gen_random_uuid(), md5('user' || (n % 10) || organization)::uuid, j.at, j.at + (random() * 7200000)::bigint
    from (
        select n, first + (random() * days)::bigint * 86400000 + 28800000 + (random() * 36000000)::bigint as at
        from generate_series(1, events * 9 / 80) n
    ) j;
    insert into metered_jobs
    select job_id, organization, md5('configuration' || (row_number() over () % 5) || organization)::uuid, user_id
    from bench_jobs;
    insert into runs (job_id, number, organization_id, user_id, started_at, ended_at, configuration_id, machine_id,
        started_recorded_at, ended_recorded_at, machine_type_id)
    select j.job_id, 3, organization, j.user_id, j.started_at, j.ended_at, m.configuration_id,
        md5('machine' || (row_number() over () % 20) || organization)::uuid, j.started_at + 50, j.ended_at + 50,
        machine_type_id('default')
    from bench_jobs j join metered_jobs m using (job_id);
    perform metering_run_sums_add(array_agg(organization), array_agg(s.scope::smallint), array_agg(s.subject),
        array_agg(c.at), array_agg(c.delta))
    from runs r cross join lateral (values (r.started_at, 1::bigint), (r.ended_at, -1)) as c (at, delta)
        cross join lateral (values
            (0::smallint, '00000000-0000-0000-0000-000000000000'::uuid), (1, r.user_id), (2, r.configuration_id),
            (3, r.machine_id), (4, r.machine_type_id)
        ) as s (scope, subject)
    where r.organization_id = organization;
    insert into file_link_changes
    select organization, f.file_id, j.job_id, 1, 2, j.started_at - 1000, true, j.started_at
    from (select *, row_number() over () as n from bench_jobs) j
        join (select *, row_number() over () as n from bench_files) f using (n);
end
$$;
