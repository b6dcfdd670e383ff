-- Files that jobs share in a period: their links and changes, and the creations of the jobs. The rollups of `rollup_sums.sql` follow.
-- `row_kind` names the kind of each row; the Rust module `usage_row` documents its columns.
--
-- $1 organization · $2 to $19 of the rollups · $20 first and $21 last relevant instant · $22 known at
-- $23 files with records later than `known at` · $24 jobs to read the files of, null for all · $25 limit of links · $26 limit of changes
-- $27 an organization with fewer links than this has all of them read at once · $28 whether creations of jobs are requested
--
-- `offset 0` keeps an index lookup for each row. Otherwise a join might read all links and changes that the organization ever had.
with stored as not materialized (
    -- Files that are stored, files freed since the first instant, and files with late records; or the files of some jobs.
    select file_id, s0, s1, first_at, last_at, changes, has_sums from metering_files
    where $24::uuid[] is null and organization_id = $1 and s0 <> 0 and first_at <= $21
    union all
    select f.* from metering_storage_sums s cross join lateral (
        -- Only 32-day buckets with changes can contain freed files.
        select file_id, s0, s1, first_at, last_at, changes, has_sums from metering_files
        where organization_id = $1 and s0 = 0 and metering_bucket(last_at, 2764800000) = s.bucket
            and last_at >= $20 and first_at <= $21
        offset 0
    ) f
    where $24 is null and s.organization_id = $1 and s.width = 2 and s.bucket >= metering_bucket($20, 2764800000)
    union all
    select f.* from unnest($23::uuid[]) as u (id) cross join lateral (
        select file_id, s0, s1, first_at, last_at, changes, has_sums from metering_files
        where organization_id = $1 and file_id = u.id and s0 = 0 and last_at < $20
        offset 0
    ) f
    where $24 is null
    union all
    select f.* from (
        select distinct l.file_id from unnest($24) as j (id) cross join lateral (
            select file_id from file_link_changes where organization_id = $1 and job_id = j.id and at <= $21 and linked offset 0
        ) l
    ) linked cross join lateral (
        select file_id, s0, s1, first_at, last_at, changes, has_sums from metering_files
        where organization_id = $1 and file_id = linked.file_id and first_at <= $21
            and (s0 <> 0 or last_at >= $20 or file_id = any($23))
        offset 0
    ) f
), few as materialized (
    -- In the order of the index that is read.
    select file_id, job_id, role, version, at, linked, recorded_at from file_link_changes
    where $24 is null and organization_id = $1 order by file_id, at limit $27
), counted as materialized (
    select count(*) < $27 as all_of_them from few
), links as materialized (
    -- A few links are all read, at a tenth of the cost of a lookup for each file. A full join is never planned as a nested loop, regardless of
    -- the estimates.
    (select file_id, s0, s1, first_at, last_at, changes, has_sums, job_id, role, version, at, linked
    from (
        select s.file_id, s.s0, s.s1, s.first_at, s.last_at, s.changes, s.has_sums, l.job_id, l.role, l.version, l.at, l.linked
        from stored s full join (
            select * from few where at <= $21 and ($22::bigint is null or recorded_at <= $22)
        ) l on l.file_id = s.file_id
        where $24 is null and (select all_of_them from counted)
        offset 0
    ) both_sides
    where file_id is not null and job_id is not null
    limit $25)
    union all
    (select s.file_id, s.s0, s.s1, s.first_at, s.last_at, s.changes, s.has_sums, l.job_id, l.role, l.version, l.at, l.linked
    from stored s cross join lateral (
        select job_id, role, version, at, linked from file_link_changes
        where organization_id = $1 and file_id = s.file_id and at <= $21 and ($22 is null or recorded_at <= $22)
        offset 0
    ) l
    where $24 is not null or not (select all_of_them from counted)
    limit $25)
), links_with_level as not materialized (
    -- A file that changed at one instant only has a known level since then.
    select *, case when first_at = last_at and $22 is null and abs(s0) < 9223372036854775807 then s0 end as held_bytes
    from links
)
select 9 as row_kind, null::integer as span_index, file_id as subject_id, job_id as related_id,
    null::uuid as configuration_id, null::integer as meter, null::integer as scope, null::text as s0,
    null::text as s1, at, null::bigint as ended_at, version, role::integer as role,
    held_bytes::bigint as delta_bytes, first_at as held_since, null::text as byte_ms, linked as flag
from links_with_level
union all
(select 6, null, changed.file_id, null, null, null, null, null, null, c.at, null, null, null, c.delta_bytes, null,
    null, null
from (
    -- Changes before the first link or before the period are merged into one.
    select file_id, s1, first_at, last_at, changes, has_sums, case when $22 is null then s0 end as known_s0,
        greatest($20, min(at)) as since
    from links_with_level where held_bytes is null group by file_id, s0, s1, first_at, last_at, changes, has_sums
) changed cross join lateral metering_file_changes(
    $1, file_id, known_s0, s1, first_at, last_at, changes, has_sums, since, $21, $22
) c
limit $26)
union all
select 10, null, j.job_id, k.user_id, k.configuration_id, null, null, null, null, null, null, null, null, null, null,
    null, null
from (select distinct job_id from links where $28::boolean) j cross join lateral (
    select user_id, configuration_id from metered_jobs where organization_id = $1 and job_id = j.job_id offset 0
) k
