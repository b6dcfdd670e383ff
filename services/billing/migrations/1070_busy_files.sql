-- Files that change often: sums of a file's changes by hour, day, 32 days and 1,024 days, as those of organizations are. An upload of 10,000 parts is
-- 10,000 changes, and a list of such files would read each of them. Of a file of few changes these are the shortest that can be read, so
-- only one of more has sums; it gets them for all its changes with the first change that makes it one.

create table metering_file_sums (
    organization_id uuid           not null,
    file_id         uuid           not null,
    width           smallint       not null, -- 0 hour, 1 day, 2 32 days, 3 1,024 days
    bucket          bigint         not null, -- its number since 1970
    s0              numeric(39, 0) not null,
    s1              numeric(39, 0) not null,
    primary key (organization_id, file_id, width, bucket)
) with (fillfactor = 85);

alter table metering_files
    add column changes bigint, -- null where they were not counted: they are with the next change
    add column has_sums boolean not null default false; -- in metering_file_sums

drop index metering_files_stored;
create index metering_files_stored on metering_files (organization_id, file_id) include (s0, s1, first_at, last_at, changes, has_sums)
    where s0 <> 0;
drop index metering_files_freed;
create index metering_files_freed on metering_files (organization_id, (metering_bucket(last_at, 2764800000)), file_id)
    include (s0, s1, first_at, last_at, changes, has_sums) where s0 = 0;

-- A file of more changes has sums.
create function metering_few_changes() returns bigint language sql immutable parallel safe return 32;

-- Takes in the sums of files, of changes that lie in storage_changes by now.
create or replace function metering_files_add(organization_ids uuid[], files uuid[], instants bigint[], deltas bigint[])
returns void language plpgsql as $$
begin
    with touched as (
        insert into metering_files as kept
            (organization_id, file_id, s0, s1, first_at, last_at, freed, lowest, changes, has_sums)
        select c.organization_id, c.file_id, sum(c.delta), sum(c.delta::numeric * c.at), min(c.at), max(c.at),
            bool_or(c.delta < 0), 0, count(*), count(*) > metering_few_changes()
        from unnest(organization_ids, files, instants, deltas) as c (organization_id, file_id, at, delta)
        group by 1, 2
        order by 1, 2
        on conflict (organization_id, file_id)
        do update set s0 = kept.s0 + excluded.s0, s1 = kept.s1 + excluded.s1,
            first_at = least(kept.first_at, excluded.first_at), last_at = greatest(kept.last_at, excluded.last_at),
            freed = kept.freed or excluded.freed,
            (changes, has_sums) = (
                select c.count, kept.has_sums or c.count > metering_few_changes()
                from (
                    select coalesce(kept.changes + excluded.changes, (
                        select count(*) from storage_changes s
                        where s.organization_id = kept.organization_id and s.file_id = kept.file_id
                    )) as count
                ) c
            )
        returning organization_id, file_id, has_sums
    ), busy as materialized (
        -- Those that had none before get them of all their changes.
        select organization_id, file_id, exists (
            select from metering_file_sums s where s.organization_id = touched.organization_id and s.file_id = touched.file_id
        ) as kept
        from touched where has_sums
    ), taken_in as (
        select organization_id, file_id, c.at, c.delta
        from unnest(organization_ids, files, instants, deltas) as c (organization_id, file_id, at, delta)
            join busy using (organization_id, file_id)
        where busy.kept
        union all
        select busy.organization_id, busy.file_id, c.at, c.delta
        from busy cross join lateral (
            select s.at, s.delta_bytes as delta from storage_changes s
            where s.organization_id = busy.organization_id and s.file_id = busy.file_id
        ) c
        where not busy.kept
    )
    insert into metering_file_sums as kept (organization_id, file_id, width, bucket, s0, s1)
    select t.organization_id, t.file_id, w.width, metering_bucket(t.at, w.millis), sum(t.delta), sum(t.delta::numeric * t.at)
    from taken_in t cross join metering_widths() w
    group by 1, 2, 3, 4
    order by 1, 2, 3, 4
    on conflict (organization_id, file_id, width, bucket)
    do update set s0 = kept.s0 + excluded.s0, s1 = kept.s1 + excluded.s1;

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

-- The sums of the changes of a file that has sums, from an instant on.
create function metering_file_since(organization uuid, file uuid, instant bigint) returns table (s0 numeric, s1 numeric)
language sql stable as $$
    select coalesce(sum(p.s0), 0), coalesce(sum(p.s1), 0)
    from (
        -- What is left of the hour.
        select c.delta_bytes::numeric as s0, c.delta_bytes::numeric * c.at as s1
        from storage_changes c
        where c.organization_id = organization and c.file_id = file and c.at >= instant
            and c.at < metering_bucket(instant + 3599999, 3600000) * 3600000
        union all
        -- And the hours that are left of the day, the days of the 32, and so on.
        select s.s0, s.s1
        from (
            values (0::smallint, 3600000::bigint, 24::bigint), (1, 86400000, 32), (2, 2764800000, 32), (3, 88473600000, null)
        ) as w (width, millis, wider)
            cross join lateral (
                select s.s0, s.s1 from metering_file_sums s
                where s.organization_id = organization and s.file_id = file and s.width = w.width
                    and s.bucket >= metering_bucket(instant + w.millis - 1, w.millis)
                    and s.bucket < coalesce(
                        metering_bucket(instant + w.millis * w.wider - 1, w.millis * w.wider) * w.wider, 9223372036854775807
                    )
                offset 0
            ) s
    ) p
$$;

-- How a file's level changed up to and with `until`, as far as it matters from `since` on; the least to read of what there is. `kept`, `kept1` and
-- the rest are its row in metering_files; `kept` is null where what was known must be told instead.
create function metering_file_changes(
    organization uuid, file uuid, kept numeric, kept1 numeric, first_at bigint, last_at bigint, changes bigint, has_sums boolean,
    since bigint, until bigint, known_at bigint
) returns table (at bigint, delta_bytes bigint) language sql stable as $$
    -- Of two changes, the two sums tell both: one was first, and one last.
    select v.at, v.delta_bytes
    from (select div(kept1 - kept * first_at, nullif(last_at - first_at, 0)) as last_delta) two
        cross join lateral (values (first_at, (kept - last_delta)::bigint), (last_at, last_delta::bigint)) v (at, delta_bytes)
    where not has_sums and changes = 2 and first_at < last_at and kept is not null and v.at <= until
    union all
    select c.at, c.delta_bytes from storage_changes c
    where (not has_sums and changes = 2 and first_at < last_at and kept is not null) is not true
        and c.organization_id = organization and c.file_id = file and c.at <= until
        and c.at >= case when has_sums then since else -9223372036854775808 end and (known_at is null or c.recorded_at <= known_at)
    union all
    -- Of many changes, all that was before is one change at the instant when the level changed last, which is where what lasts till then began; or
    -- as many changes as it takes: one is below 2^63.
    select last.at, (sign(before.level) * least(abs(before.level) - n * 9223372036854775807, 9223372036854775807))::bigint
    from (
        select c.at from storage_changes c
        where has_sums and c.organization_id = organization and c.file_id = file and c.at < since
            and (known_at is null or c.recorded_at <= known_at)
        group by c.at having sum(c.delta_bytes) <> 0
        order by c.at desc limit 1
    ) last cross join lateral (
        select case when kept is null then (
            select coalesce(sum(c.delta_bytes), 0) from storage_changes c
            where c.organization_id = organization and c.file_id = file and c.at < since and c.recorded_at <= known_at
        ) else kept - (select s.s0 from metering_file_since(organization, file, since) s) end as level
        offset 0
    ) before cross join lateral generate_series(0, div(abs(before.level) - 1, 9223372036854775807)) n
    where has_sums and before.level <> 0
$$;
