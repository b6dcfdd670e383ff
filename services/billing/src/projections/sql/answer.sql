-- All that an answer about usage reads, in one statement and so at one moment. Each row says of which part it is:
-- 1 sums, 2 runs of a page of jobs, 3 odd runs, 4 a page of files, 5 their links, 6 changes of files, 7 files below nothing, 8 whether a
-- file is stored that the sum of all may not show.
--
-- $1 organization · $2 first and $3 last instant that matter · $4 known at · $5 jobs after, $6 at most · $7 files after, $8 at most
-- $9 files that sums say too much of · $10 at most so many odd ones · $11 at most so many changes · $30 whether part 8 matters
-- sums: $12 where spans start, and where the last one ends · $13 meters, $14 scopes, $15 widths, $16 their milliseconds, $17 from a
-- bucket's start to what says where it counts, $18 first bucket, $19 the one after the last, $20 where they count (null: where they lie)
-- within hours: $21 meters, $22 scopes, $23 from, $24 to, $25 where they count, $26 whether they lie at edges
-- hours at edges: $27 which, $28 of storage, $29 of runs in which scopes
--
-- What lies between the edge of a span and the midnight next to it is added where it lies, and taken out of where its day counts.
with longest as (
    -- How long the longest run took bounds how long before a period one can have started that ended in order and still ran in it.
    select coalesce(max(ended_at - started_at), 0) as millis from runs
    where organization_id = $1 and ended_at >= started_at
), touched as materialized (
    select r.job_id, r.number, r.user_id, r.started_at, r.ended_at
    from longest, runs r
    where $6 > 0 and r.organization_id = $1 and r.ended_at >= r.started_at and r.ended_at >= $2
        and r.started_at >= $2 - longest.millis and r.started_at <= $3 and r.job_id > $5
    union
    select job_id, number, user_id, started_at, ended_at from runs
    where $6 > 0 and organization_id = $1 and ended_at is null and started_at <= $3 and job_id > $5
    union
    select job_id, number, user_id, started_at, ended_at from runs
    where $6 > 0 and organization_id = $1 and (started_at is null or ended_at < started_at)
        and (ended_at >= $2 or started_at >= $2) and least(started_at, ended_at) <= $3 and job_id > $5
), last_job as (
    select job_id as id from (select distinct job_id from touched order by job_id limit $6) page order by job_id desc limit 1
), stored as materialized (
    select file_id, s0, s1, first_at, last_at from metering_files
    where organization_id = $1 and s0 <> 0 and file_id > $7 and first_at < $3 order by file_id limit $8
), page as materialized (
    -- First those that are stored still, then those that were freed since, then those asked for by name.
    select * from stored
    union all
    (select f.* from metering_storage_sums s cross join lateral (
            -- Those freed in 32 days, which are sums with changes; not all that were ever freed.
            select file_id, s0, s1, first_at, last_at from metering_files
            where organization_id = $1 and s0 = 0 and metering_bucket(last_at, 2764800000) = s.bucket
                and last_at >= $2 and file_id > $7 and first_at < $3
                -- Where those that are stored fill the page, it ends with the last of them at the latest.
                and file_id <= coalesce(
                    (select file_id from stored order by file_id offset greatest($8 - 1, 0) limit 1),
                    'ffffffff-ffff-ffff-ffff-ffffffffffff'
                )
            order by file_id limit $8
        ) f
        where s.organization_id = $1 and s.width = 2 and s.bucket >= metering_bucket($2, 2764800000)
        order by f.file_id limit $8)
    union all
    (select f.* from unnest($9::uuid[]) as u (id) cross join lateral (
            select file_id, s0, s1, first_at, last_at from metering_files
            where organization_id = $1 and file_id = u.id and s0 = 0 and last_at < $2 and file_id > $7
        ) f
        order by f.file_id limit $8)
    order by file_id limit $8
), links as materialized (
    select page.file_id, l.job_id, l.role, l.version, l.at, l.linked
    from page cross join lateral (
        select job_id, role, version, at, linked from file_link_changes
        where organization_id = $1 and file_id = page.file_id and at <= $3 and ($4::bigint is null or recorded_at <= $4)
    ) l
    limit $11
), changed as (
    select file_id from links union select page.file_id from page join unnest($9::uuid[]) as u (id) on u.id = page.file_id
)
select 1 as part, coalesce(p.place, width_bucket(m.bucket * p.millis + p.shift, $12::bigint[])) as place,
    '00000000-0000-0000-0000-000000000000'::uuid as id, null::uuid as other, 1::bigint as a, 0::bigint as b,
    sum(m.s0)::text as x, sum(m.s1)::text as y, null::boolean as said
from unnest($13::smallint[], $15::smallint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], $20::integer[])
        as p (meter, width, millis, shift, first, after, place)
    cross join lateral (
        select bucket, s0, s1 from metering_storage_sums
        where organization_id = $1 and width = p.width and bucket >= p.first and bucket < p.after
    ) m
where p.meter = 1
group by 2
union all
select 1, coalesce(p.place, width_bucket(m.bucket * p.millis + p.shift, $12)), m.subject, null, 2, p.scope,
    sum(m.s0)::text, sum(m.s1)::text, null
from unnest($13::smallint[], $14::smallint[], $15::smallint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[],
        $20::integer[])
        as p (meter, scope, width, millis, shift, first, after, place)
    cross join lateral (
        select bucket, subject, s0, s1 from metering_run_sums
        where organization_id = $1 and scope = p.scope and width = p.width and bucket >= p.first and bucket < p.after
    ) m
where p.meter = 2
group by p.scope, m.subject, 2
union all
select 1, k.place, '00000000-0000-0000-0000-000000000000', null, 1, 0, sum(k.sign * m.s0)::text, sum(k.sign * m.s1)::text, null
from metering_storage_sums m
    cross join lateral (values
        (1, width_bucket(m.bucket * 3600000, $12)),
        (-1, width_bucket(metering_bucket(m.bucket, 24) * 86400000 + 43199999, $12))
    ) as k (sign, place)
where $28 and m.organization_id = $1 and m.width = 0 and m.bucket = any($27::bigint[])
    and k.place > 0
group by k.place
union all
select 1, k.place, m.subject, null, 2, m.scope, sum(k.sign * m.s0)::text, sum(k.sign * m.s1)::text, null
from metering_run_sums m
    cross join lateral (values
        (1, width_bucket(m.bucket * 3600000, $12)),
        (-1, width_bucket(metering_bucket(m.bucket, 24) * 86400000 + 43199999, $12))
    ) as k (sign, place)
where m.organization_id = $1 and m.scope = any($29::smallint[]) and m.width = 0 and m.bucket = any($27)
    and k.place > 0
group by m.scope, m.subject, k.place
union all
select 1, k.place, '00000000-0000-0000-0000-000000000000', null, 1, 0,
    sum(k.sign * c.delta_bytes)::text, sum(k.sign * c.delta_bytes::numeric * c.at)::text, null
from unnest($21::smallint[], $22::smallint[], $23::bigint[], $24::bigint[], $25::integer[], $26::boolean[])
        as p (meter, scope, first, after, place, at_edge)
    cross join lateral (
        select at, delta_bytes from storage_changes
        where organization_id = $1 and at >= p.first and at < p.after
    ) c
    cross join lateral (values
        (1, coalesce(p.place, width_bucket(c.at, $12))),
        (-1, width_bucket(metering_bucket(c.at, 86400000) * 86400000 + 43199999, $12))
    ) as k (sign, place)
where p.meter = 1 and case when p.at_edge then k.place > 0 else k.sign = 1 end
group by k.place
union all
-- A run that ended before it started changes nothing.
select 1, k.place, k.subject, null, 2, p.scope, sum(k.sign * c.delta)::text, sum(k.sign * c.delta::numeric * c.at)::text, null
from unnest($21::smallint[], $22::smallint[], $23::bigint[], $24::bigint[], $25::integer[], $26::boolean[])
        as p (meter, scope, first, after, place, at_edge)
    cross join lateral (
        select 1 as delta, started_at as at, user_id, configuration_id, machine_id, machine_type_id from runs
        where organization_id = $1 and started_at >= p.first and started_at < p.after
            and (ended_at is null or ended_at >= started_at)
        union all
        select -1, ended_at, user_id, configuration_id, machine_id, machine_type_id from runs
        where organization_id = $1 and ended_at >= p.first and ended_at < p.after and ended_at >= started_at
    ) c
    cross join lateral (
        select sign, place, coalesce(
            case p.scope when 1 then c.user_id when 2 then c.configuration_id when 3 then c.machine_id
                when 4 then c.machine_type_id end,
            '00000000-0000-0000-0000-000000000000'
        ) as subject
        from (values
            (1, coalesce(p.place, width_bucket(c.at, $12))),
            (-1, width_bucket(metering_bucket(c.at, 86400000) * 86400000 + 43199999, $12))
        ) as k (sign, place)
    ) k
where p.meter = 2 and case when p.at_edge then k.place > 0 else k.sign = 1 end
group by p.scope, k.subject, k.place
union all
select 2, null, job_id, user_id, started_at, ended_at, null, null, null
from touched where job_id <= (select id from last_job)
union all
(select 3, null, job_id, user_id, started_at, ended_at, null, null, null
from runs
where organization_id = $1 and (started_at is null or ended_at < started_at)
    and (ended_at >= $2 or started_at >= $2) and least(started_at, ended_at) <= $3
order by job_id limit $10)
union all
-- A file's area follows from its sums, unless it changed on both sides of an edge: only then are its changes since then summed up.
-- Where the area is 0, it was stored if its level changed between the edges all the same.
select 4, null, areas.file_id, null, null, null, areas.area::text, null,
    case when areas.area <> 0 then true else exists (
        select from storage_changes
        where organization_id = $1 and file_id = areas.file_id and at > $2 and at < $3
        group by at having sum(delta_bytes) <> 0
    ) end
from (
    select file_id, case when last_at < $2 then s0 * ($3 - $2) else s0 * $3 - s1 end as area
    from page where last_at < $2 or (first_at >= $2 and last_at < $3)
    union all
    select page.file_id,
        (page.s0 - coalesce(later.end0, 0)) * $3 - (page.s1 - coalesce(later.end1, 0))
            - (page.s0 - coalesce(later.start0, 0)) * $2 + (page.s1 - coalesce(later.start1, 0))
    from page cross join lateral (
        select sum(delta_bytes) as start0, sum(delta_bytes::numeric * at) as start1,
            sum(delta_bytes) filter (where at >= $3) as end0,
            sum(delta_bytes::numeric * at) filter (where at >= $3) as end1
        from storage_changes where organization_id = $1 and file_id = page.file_id and at >= $2
    ) later
    where page.last_at >= $2 and not (page.first_at >= $2 and page.last_at < $3)
) areas
union all
select 5, role, file_id, job_id, at, version, null, null, linked from links
union all
(select 6, null, changed.file_id, null, c.at, c.delta_bytes, null, null, null
from changed cross join lateral (
    select at, delta_bytes from storage_changes
    where organization_id = $1 and file_id = changed.file_id and at <= $3 and ($4::bigint is null or recorded_at <= $4)
) c
limit $11)
union all
-- What of a file was not known may have kept it from being below nothing. Where it last changed before the period, its sums say enough.
(select 7, null, odd.file_id, null, null, null, null, null, null
from (
    select file_id, s0, last_at from metering_files where organization_id = $1 and lowest < 0 and first_at < $3
    union all
    select f.file_id, f.s0, f.last_at from unnest($9::uuid[]) as u (id)
        join metering_files f on f.organization_id = $1 and f.file_id = u.id
    where f.lowest >= 0
) odd
where $2 < $3 and case when $4::bigint is null and odd.last_at <= $2 then odd.s0 < 0 else exists (
    select from (
        select sum(sum(delta_bytes)) over (order by at) as level, lead(at, 1, $3) over (order by at) as until
        from storage_changes
        where organization_id = $1 and file_id = odd.file_id and at < $3 and ($4::bigint is null or recorded_at <= $4)
        group by at
    ) levels
    where level < 0 and until > $2
) end
order by odd.file_id limit $10)
union all
select 8, null, '00000000-0000-0000-0000-000000000000', null, null, null, null, null, null
where $30::boolean and (
    exists (
        select from metering_files f
        where f.organization_id = $1 and f.lowest < 0 and f.first_at <= $3
            and case when $4::bigint is null and f.last_at <= $3 then f.s0 <> 0 else (
                select sum(delta_bytes) <> 0 from storage_changes
                where organization_id = $1 and file_id = f.file_id and at <= $3 and ($4::bigint is null or recorded_at <= $4)
            ) end
    ) or exists (
        select from unnest($9::uuid[]) as u (id) where (
            select sum(delta_bytes) <> 0 from storage_changes
            where organization_id = $1 and file_id = u.id and at <= $3 and ($4::bigint is null or recorded_at <= $4)
        )
    )
)
