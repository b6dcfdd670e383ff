-- The files that jobs share in a period, before the sums of `sums.sql`: 9 what was linked and unlinked when, with how much the file held since
-- when if that never changed; 6 changes of how much other files held; 10 who created the jobs, and from which configuration.
--
-- $1 organization · $2 to $19 of the sums · $20 first and $21 last instant that matter · $22 known at
-- $23 files to be looked at in any case · $24 of these jobs, of all if null · $25 at most so many links · $26 at most so many changes
-- $27 so many links that an organization ever had, or more, aren't all read · $28 whether 10 matters
--
-- `offset 0` keeps a look for each row a look: joined at once, all links and changes that an organization ever had might be read.
with stored as not materialized (
    -- Those that are stored still, those that were freed since, those asked for by name; or those of some jobs.
    select file_id, s0, s1, first_at, last_at, changes, has_sums from metering_files
    where $24::uuid[] is null and organization_id = $1 and s0 <> 0 and first_at <= $21
    union all
    select f.* from metering_storage_sums s cross join lateral (
        -- Those freed in 32 days, which are sums with changes.
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
    -- In the order of the index that is read anyway.
    select file_id, job_id, role, version, at, linked, recorded_at from file_link_changes
    where $24 is null and organization_id = $1 order by file_id, at limit $27
), counted as materialized (
    select count(*) < $27 as all_of_them from few
), links as materialized (
    -- Few are all read, which costs a tenth of a look for each file. A full join is never a loop in a loop, whatever is expected.
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
), told as not materialized (
    -- What changed at one instant only is known by now.
    select *, case when first_at = last_at and $22 is null and abs(s0) < 9223372036854775807 then s0 end as held
    from links
)
select 9 as part, role::integer as place, file_id as id, job_id as other, at as a, version as b, held::text as x, first_at::text as y,
    linked as said
from told
union all
(select 6, null, changed.file_id, null, c.at, c.delta_bytes, null, null, null
from (
    -- Of a file of many changes, what was before the first link, or before the period, is told as one.
    select file_id, s1, first_at, last_at, changes, has_sums, case when $22 is null then s0 end as kept, greatest($20, min(at)) as since
    from told where held is null group by file_id, s0, s1, first_at, last_at, changes, has_sums
) changed cross join lateral metering_file_changes(
    $1, file_id, kept, s1, first_at, last_at, changes, has_sums, since, $21, $22
) c
limit $26)
union all
select 10, null, j.job_id, k.user_id, null, null, k.configuration_id::text, null, null
from (select distinct job_id from links where $28::boolean) j cross join lateral (
    select user_id, configuration_id from metered_jobs where organization_id = $1 and job_id = j.job_id offset 0
) k
