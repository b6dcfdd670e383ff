-- Sums of storage and of runs, each in a table of its own: so each of the two projections alone writes its tables, and can be
-- rebuilt beside the other. Nothing here may depend on these tables or their row types: a rebuild drops them and puts others in
-- their place.

-- Processes of the version before write and read on by `metering_add` and the name `metering_sums`, below.
lock table metering_sums in access exclusive mode;

create table metering_storage_sums (
    organization_id uuid           not null,
    width           smallint       not null, -- 0 hour, 1 day, 2 32 days, 3 1,024 days
    bucket          bigint         not null, -- its number since 1970
    s0              numeric(39, 0) not null,
    s1              numeric(39, 0) not null,
    primary key (organization_id, width, bucket)
) with (fillfactor = 85);

create table metering_run_sums (
    organization_id uuid           not null,
    scope           smallint       not null, -- 0 the organization, 1 by user, 2 by job configuration, 3 by machine, 4 by its type
    width           smallint       not null,
    bucket          bigint         not null,
    subject         uuid           not null, -- whose, in its scope; nil for the organization itself, and for nobody
    s0              numeric(39, 0) not null,
    s1              numeric(39, 0) not null,
    primary key (organization_id, scope, width, bucket, subject)
) with (fillfactor = 85);

insert into metering_storage_sums
select organization_id, width, bucket, s0, s1 from metering_sums where meter = 1 order by 1, 2, 3;
insert into metering_run_sums
select organization_id, scope, width, bucket, subject, s0, s1 from metering_sums where meter = 2 order by 1, 2, 3, 4, 5;
drop table metering_sums;

-- Both, as they lay in one table. A function stands between, since a view would hold on to the tables; it is inlined.
create function metering_all_sums() returns table (
    organization_id uuid, meter smallint, scope smallint, width smallint, bucket bigint, subject uuid, s0 numeric, s1 numeric
) language sql stable as $$
    select organization_id, 1::smallint, 0::smallint, width, bucket, '00000000-0000-0000-0000-000000000000'::uuid, s0, s1
    from metering_storage_sums
    union all
    select organization_id, 2::smallint, scope, width, bucket, subject, s0, s1 from metering_run_sums
$$;
create view metering_sums as select * from metering_all_sums();

-- The four widths of buckets, and how many milliseconds each has.
create function metering_widths() returns table (width smallint, millis bigint) language sql immutable parallel safe as $$
    values (0::smallint, 3600000::bigint), (1::smallint, 86400000), (2::smallint, 2764800000), (3::smallint, 88473600000)
$$;

-- Takes in changes of what organizations store, each once. Rows are taken in one order everywhere, so that writers don't wait for
-- each other in a ring.
create function metering_storage_sums_add(organization_ids uuid[], instants bigint[], deltas bigint[])
returns void language sql as $$
    insert into metering_storage_sums as kept (organization_id, width, bucket, s0, s1)
    select c.organization_id, w.width, metering_bucket(c.at, w.millis), sum(c.delta), sum(c.delta::numeric * c.at)
    from unnest(organization_ids, instants, deltas) as c (organization_id, at, delta) cross join metering_widths() w
    group by 1, 2, 3
    order by 1, 2, 3
    on conflict (organization_id, width, bucket)
    do update set s0 = kept.s0 + excluded.s0, s1 = kept.s1 + excluded.s1
$$;

-- Takes in changes of how many jobs run, each once.
create function metering_run_sums_add(
    organization_ids uuid[], scopes smallint[], subjects uuid[], instants bigint[], deltas bigint[]
) returns void language sql as $$
    insert into metering_run_sums as kept (organization_id, scope, width, bucket, subject, s0, s1)
    select c.organization_id, c.scope, w.width, metering_bucket(c.at, w.millis), c.subject,
        sum(c.delta), sum(c.delta::numeric * c.at)
    from unnest(organization_ids, scopes, subjects, instants, deltas) as c (organization_id, scope, subject, at, delta)
        cross join metering_widths() w
    group by 1, 2, 3, 4, 5
    order by 1, 2, 3, 4, 5
    on conflict (organization_id, scope, width, bucket, subject)
    do update set s0 = kept.s0 + excluded.s0, s1 = kept.s1 + excluded.s1
$$;

-- As processes of the version before call it.
create or replace function metering_add(
    organization_ids uuid[], meters smallint[], scopes smallint[], subjects uuid[], instants bigint[], deltas bigint[]
) returns void language sql as $$
    select metering_storage_sums_add(array_agg(organization_id), array_agg(at), array_agg(delta))
    from unnest(organization_ids, meters, instants, deltas) as c (organization_id, meter, at, delta) where meter = 1;
    select metering_run_sums_add(array_agg(organization_id), array_agg(scope), array_agg(subject), array_agg(at), array_agg(delta))
    from unnest(organization_ids, meters, scopes, subjects, instants, deltas)
        as c (organization_id, meter, scope, subject, at, delta) where meter = 2
$$;

create or replace function metering_storage_add(
    organization_ids uuid[], files uuid[], instants bigint[], deltas bigint[], recorded bigint[], event_ids uuid[]
) returns void language plpgsql as $$
begin
    insert into storage_changes (organization_id, file_id, at, delta_bytes, recorded_at, event_id)
    select * from unnest(organization_ids, files, instants, deltas, recorded, event_ids);
    perform metering_files_add(organization_ids, files, instants, deltas);
    perform metering_storage_sums_add(organization_ids, instants, deltas);
end
$$;

-- As processes call it that don't know of event ids.
create or replace function metering_storage_add(
    organization_ids uuid[], files uuid[], instants bigint[], deltas bigint[], recorded bigint[]
) returns void language plpgsql as $$
begin
    perform metering_storage_add(organization_ids, files, instants, deltas, recorded, null);
end
$$;

-- It took rows of `runs`, by their type; only migrations called it.
drop function metering_run_changes(runs[]);
