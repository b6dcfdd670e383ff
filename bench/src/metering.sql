-- Generates a year of events day by day, so that the rows of an organization are scattered among those of others.
-- Rows are inserted through the projections' own functions. Activity is between 8:00 and 18:00 UTC.

-- The organizations with their loader, number of events, first instant and number of days.
create unlogged table bench_organizations (organization uuid, loader integer, events integer, first bigint, days integer);
create unlogged table bench_changes (loader integer, day bigint, organization uuid, file_id uuid, at bigint, delta bigint);
create unlogged table bench_jobs (
    loader integer, day bigint, organization uuid, job_id uuid, user_id uuid, configuration_id uuid, machine_id uuid,
    file_id uuid, started_at bigint, ended_at bigint
);

create function bench_prepare() returns void language sql
set work_mem = '256MB'
as $$
    -- Of 20 events, 11 belong to files: 7 uploads, and 4 deletions of these a month later on average.
    with stored as materialized (
        select o.loader, o.organization, n, gen_random_uuid() as file_id, (random() * 10000000000)::bigint + 1 as bytes,
            o.first + (random() * o.days)::bigint * 86400000 + 28800000 + (random() * 36000000)::bigint as at
        from bench_organizations o cross join lateral generate_series(1, o.events * 7 / 20) n
    ), freed as (
        select *, at + (random() * 60 * 86400000)::bigint as freed_at from stored where n % 7 < 4
    ), changes as (
        select loader, organization, file_id, at, bytes as delta from stored
        union all
        select loader, organization, file_id, freed_at, -bytes from freed
    ), nothing as (
        insert into bench_changes
        select loader, at / 86400000, organization, file_id, at, delta from changes order by 1, 2, 3
    )
    -- 9 of 20 events belong to jobs (created, linked to a file, started, ended), of 10 users, 5 configurations and 20 machines.
    insert into bench_jobs
    select j.loader, j.at / 86400000, j.organization, gen_random_uuid(),
        md5('user' || (j.n % 10) || j.organization)::uuid,
        md5('configuration' || (j.n % 5) || j.organization)::uuid,
        md5('machine' || (j.n % 20) || j.organization)::uuid,
        s.file_id, j.at, j.at + (random() * 7200000)::bigint
    from (
        select o.loader, o.organization, n,
            o.first + (random() * o.days)::bigint * 86400000 + 28800000 + (random() * 36000000)::bigint as at
        from bench_organizations o cross join lateral generate_series(1, o.events * 9 / 80) n
    ) j join stored s using (organization, n)
    order by 1, 2, 3;
$$;
create index on bench_changes (loader, day);
create index on bench_jobs (loader, day);

create function bench_day(of_loader integer, of_day bigint) returns void language plpgsql
set client_min_messages = warning
as $$
begin
    perform metering_storage_add(array_agg(c.organization), array_agg(c.file_id), array_agg(c.at), array_agg(c.delta),
        array_agg(c.at + 50))
    from bench_changes c where c.loader = of_loader and c.day = of_day having count(*) > 0;

    insert into metered_jobs
    select job_id, organization, configuration_id, user_id from bench_jobs where loader = of_loader and day = of_day;
    insert into runs (job_id, number, organization_id, user_id, started_at, ended_at, configuration_id, machine_id,
        started_recorded_at, ended_recorded_at, machine_type_id)
    select job_id, 3, organization, user_id, started_at, ended_at, configuration_id, machine_id, started_at + 50, ended_at + 50,
        machine_type_id('default')
    from bench_jobs where loader = of_loader and day = of_day;
    perform metering_run_sums_add(array_agg(j.organization), array_agg(s.scope::smallint), array_agg(s.subject), array_agg(c.at),
        array_agg(c.delta))
    from bench_jobs j cross join lateral (values (j.started_at, 1::bigint), (j.ended_at, -1)) as c (at, delta)
        cross join lateral (values
            (0::smallint, '00000000-0000-0000-0000-000000000000'::uuid), (1, j.user_id), (2, j.configuration_id),
            (3, j.machine_id), (4, machine_type_id('default'))
        ) as s (scope, subject)
    where j.loader = of_loader and j.day = of_day
    having count(*) > 0;
    insert into file_link_changes
    select organization, file_id, job_id, 1, 2, started_at - 1000, true, started_at
    from bench_jobs where loader = of_loader and day = of_day;
end
$$;

-- Inserts the parts [first, after) of each upload. Uploads start every 6 hours and take 2.5 hours.
create function bench_parts(of_organization uuid, uploads bigint, start bigint, first bigint, after bigint) returns void language sql as $$
    select metering_storage_add(array_agg(of_organization), array_agg(md5('upload ' || f)::uuid), array_agg(c.at), array_agg(1000000::bigint),
        array_agg(c.at + 50))
    from generate_series(0, uploads - 1) f cross join generate_series(first, after - 1) p
        cross join lateral (select start + f * 21600000 + p * 1800 as at) c
$$;

-- Links two jobs to each upload, one hour after its last part.
create function bench_link_parts(of_organization uuid, uploads bigint, start bigint) returns void language sql as $$
    insert into file_link_changes
    select of_organization, md5('upload ' || f)::uuid, md5('job ' || (f + j) % uploads)::uuid, 1, 2, start + f * 21600000 + 12600000, true,
        start + f * 21600000 + 12600000
    from generate_series(0, uploads - 1) f cross join generate_series(0, 1) j
$$;
