-- Usage as sums that an answer reads instead of single events. Instants are UTC milliseconds.
--
-- Of level changes d at t, s0 = sum(d) and s1 = sum(d * t). They are kept by hour, by day, by 32 days and by 1,024 days, so that
-- what happened before any instant is a few dozen rows, however long ago it began; a change, also a late one, touches one row of
-- each width. What lies within an hour is read from the changes themselves, which makes every cut exact.

create table metering_sums (
    organization_id uuid           not null,
    meter           smallint       not null, -- 1 bytes stored, 2 jobs running
    scope           smallint       not null, -- 0 the organization, 1 by user, 2 by job configuration, 3 by machine
    width           smallint       not null, -- 0 hour, 1 day, 2 32 days, 3 1,024 days
    bucket          bigint         not null, -- its number since 1970
    subject         uuid           not null, -- whose, in its scope; nil for the organization itself, and for nobody
    s0              numeric(39, 0) not null,
    s1              numeric(39, 0) not null,
    primary key (organization_id, meter, scope, width, bucket, subject)
) with (fillfactor = 85);

-- Each file's sums, which answer for it unless it changed before and after an edge of the period.
create table metering_files (
    organization_id uuid           not null,
    file_id         uuid           not null,
    s0              numeric(39, 0) not null,
    s1              numeric(39, 0) not null,
    first_at        bigint         not null,
    last_at         bigint         not null,
    freed           boolean        not null, -- whether it ever held less than before
    lowest          numeric(39, 0) not null, -- the least it ever held
    primary key (organization_id, file_id)
) with (fillfactor = 85);

-- A period's files are those that are stored still, and those that were freed since it began. Both in the order of pages.
create index metering_files_stored on metering_files (organization_id, file_id) where s0 <> 0;
create index metering_files_freed on metering_files (organization_id, last_at) where s0 = 0;
create index metering_files_negative on metering_files (organization_id, file_id) where lowest < 0;

create index storage_changes_by_file on storage_changes (organization_id, file_id, at) include (delta_bytes);
-- What an earlier answer didn't know yet.
create index storage_changes_by_record on storage_changes (organization_id, recorded_at);

alter table runs
    add column configuration_id uuid, -- null when the job's creation isn't known
    add column machine_id uuid,
    add column started_recorded_at bigint,
    add column ended_recorded_at bigint;
-- What was recorded before this was kept is taken to be known since it happened.
update runs set started_recorded_at = started_at, ended_recorded_at = ended_at;
create index runs_by_start_record on runs (organization_id, started_recorded_at);
create index runs_by_end_record on runs (organization_id, ended_recorded_at);
create index runs_going_on on runs (organization_id, started_at) where ended_at is null;
-- How long the longest run took bounds how long before a period a run can have started that still ran in it.
create index runs_by_length on runs (organization_id, (ended_at - started_at)) where ended_at >= started_at;
create index runs_odd on runs (organization_id, job_id) where started_at is null or ended_at < started_at;

-- What is known of jobs beside their runs.
create table metered_jobs (
    job_id           uuid primary key,
    organization_id  uuid not null,
    configuration_id uuid not null,
    user_id          uuid
);

-- Which bucket an instant lies in; rounded down also before 1970.
create function metering_bucket(at bigint, width bigint) returns bigint language sql immutable parallel safe
return (at - ((at % width) + width) % width) / width;

-- Takes in level changes, each once. Rows are taken in one order everywhere, so that writers don't wait for each other in a ring.
create function metering_add(
    organization_ids uuid[], meters smallint[], scopes smallint[], subjects uuid[], instants bigint[], deltas bigint[]
) returns void language sql as $$
    insert into metering_sums as kept (organization_id, meter, scope, width, bucket, subject, s0, s1)
    select c.organization_id, c.meter, c.scope, w.width, metering_bucket(c.at, w.millis), c.subject,
        sum(c.delta), sum(c.delta::numeric * c.at)
    from unnest(organization_ids, meters, scopes, subjects, instants, deltas)
            as c (organization_id, meter, scope, subject, at, delta)
        cross join (values (0::smallint, 3600000), (1, 86400000), (2, 2764800000), (3, 88473600000)) as w (width, millis)
    group by 1, 2, 3, 4, 5, 6
    order by 1, 2, 3, 4, 5, 6
    on conflict (organization_id, meter, scope, width, bucket, subject)
    do update set s0 = kept.s0 + excluded.s0, s1 = kept.s1 + excluded.s1
$$;

-- The least a file ever held; changes of one instant are one change.
create function metering_lowest(organization uuid, file uuid) returns numeric language sql stable as $$
    select least(0, min(level)) from (
        select sum(sum(delta_bytes)) over (order by at) as level
        from storage_changes where organization_id = organization and file_id = file
        group by at
    ) levels
$$;

-- Takes in the sums of files, of changes that lie in storage_changes by now.
create function metering_files_add(organization_ids uuid[], files uuid[], instants bigint[], deltas bigint[])
returns void language plpgsql as $$
begin
    insert into metering_files as kept (organization_id, file_id, s0, s1, first_at, last_at, freed, lowest)
    select c.organization_id, c.file_id, sum(c.delta), sum(c.delta::numeric * c.at), min(c.at), max(c.at),
        bool_or(c.delta < 0), 0
    from unnest(organization_ids, files, instants, deltas) as c (organization_id, file_id, at, delta)
    group by 1, 2
    order by 1, 2
    on conflict (organization_id, file_id)
    do update set s0 = kept.s0 + excluded.s0, s1 = kept.s1 + excluded.s1,
        first_at = least(kept.first_at, excluded.first_at), last_at = greatest(kept.last_at, excluded.last_at),
        freed = kept.freed or excluded.freed;

    -- Only what was freed can have been freed too much or too early.
    update metering_files kept set lowest = metering_lowest(kept.organization_id, kept.file_id)
    from (
        select distinct c.organization_id, c.file_id
        from unnest(organization_ids, files) as c (organization_id, file_id)
        order by 1, 2
    ) touched
    where kept.organization_id = touched.organization_id and kept.file_id = touched.file_id and kept.freed
        and kept.lowest <> metering_lowest(kept.organization_id, kept.file_id);
end
$$;

-- Takes in changes of what files hold, each once.
create function metering_storage_add(
    organization_ids uuid[], files uuid[], instants bigint[], deltas bigint[], recorded bigint[]
) returns void language plpgsql as $$
begin
    insert into storage_changes (organization_id, file_id, at, delta_bytes, recorded_at)
    select * from unnest(organization_ids, files, instants, deltas, recorded);
    perform metering_files_add(organization_ids, files, instants, deltas);
    perform metering_add(organization_ids, array_fill(1::smallint, array[cardinality(files)]),
        array_fill(0::smallint, array[cardinality(files)]),
        array_fill('00000000-0000-0000-0000-000000000000'::uuid, array[cardinality(files)]), instants, deltas);
end
$$;

-- The changes that a run makes to how many jobs run, by organization, user, configuration and machine. A run that ended before it
-- started counts nothing.
create function metering_run_changes(runs[])
returns table (organization_id uuid, scope smallint, subject uuid, at bigint, delta bigint)
language sql immutable as $$
    select r.organization_id, s.scope, coalesce(s.subject, '00000000-0000-0000-0000-000000000000'::uuid), c.at, c.delta
    from unnest($1) r
        cross join lateral (values (r.started_at, 1::bigint), (greatest(r.started_at, r.ended_at), -1)) as c (at, delta)
        cross join lateral (values
            (0::smallint, null::uuid), (1, r.user_id), (2, r.configuration_id), (3, r.machine_id)
        ) as s (scope, subject)
    where r.started_at is not null and (c.delta = 1 or r.ended_at is not null)
$$;

-- What there is already.
do $$
declare
    organization uuid;
begin
    for organization in select distinct organization_id from storage_changes loop
        perform metering_files_add(array_agg(organization_id), array_agg(file_id), array_agg(at), array_agg(delta_bytes)),
            metering_add(array_agg(organization_id), array_agg(1::smallint), array_agg(0::smallint),
                array_agg('00000000-0000-0000-0000-000000000000'::uuid), array_agg(at), array_agg(delta_bytes))
        from storage_changes where organization_id = organization;
    end loop;
    for organization in select distinct organization_id from runs loop
        perform metering_add(array_agg(c.organization_id), array_agg(2::smallint), array_agg(c.scope), array_agg(c.subject),
            array_agg(c.at), array_agg(c.delta))
        from (select array_agg(r) as all_runs from runs r where r.organization_id = organization) a
            cross join lateral metering_run_changes(a.all_runs) c;
    end loop;
end
$$;
