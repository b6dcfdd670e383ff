-- The files that jobs share in a period: 1 what was linked and unlinked when, with how much the file held since when if that never
-- changed; 2 changes of how much other files held.
--
-- $1 organization · $2 first and $3 last instant that matter · $4 known at · $5 files to be looked at in any case
-- $6 of these jobs, of all if null · $7 at most so many links · $8 at most so many changes
-- $9 so many links that an organization ever had, or more, aren't all read
--
-- `offset 0` keeps a look for each row a look: joined at once, all links and changes that an organization ever had might be read.
with stored as not materialized (
    -- Those that are stored still, those that were freed since, those asked for by name; or those of some jobs.
    select file_id, s0, first_at, last_at from metering_files
    where $6::uuid[] is null and organization_id = $1 and s0 <> 0 and first_at <= $3
    union all
    select f.* from metering_storage_sums s cross join lateral (
        -- Those freed in 32 days, which are sums with changes.
        select file_id, s0, first_at, last_at from metering_files
        where organization_id = $1 and s0 = 0 and metering_bucket(last_at, 2764800000) = s.bucket
            and last_at >= $2 and first_at <= $3
        offset 0
    ) f
    where $6 is null and s.organization_id = $1 and s.width = 2 and s.bucket >= metering_bucket($2, 2764800000)
    union all
    select f.* from unnest($5::uuid[]) as u (id) cross join lateral (
        select file_id, s0, first_at, last_at from metering_files
        where organization_id = $1 and file_id = u.id and s0 = 0 and last_at < $2
        offset 0
    ) f
    where $6 is null
    union all
    select f.* from (
        select distinct l.file_id from unnest($6) as j (id) cross join lateral (
            select file_id from file_link_changes where organization_id = $1 and job_id = j.id and at <= $3 and linked offset 0
        ) l
    ) linked cross join lateral (
        select file_id, s0, first_at, last_at from metering_files
        where organization_id = $1 and file_id = linked.file_id and first_at <= $3
            and (s0 <> 0 or last_at >= $2 or file_id = any($5))
        offset 0
    ) f
), links as materialized (
    -- Few are all read, which costs a tenth of a look for each file. A full join is never a loop in a loop, whatever is expected.
    (select file_id, s0, first_at, last_at, job_id, role, version, at, linked
    from (
        select s.file_id, s.s0, s.first_at, s.last_at, l.job_id, l.role, l.version, l.at, l.linked
        from stored s full join (
            select file_id, job_id, role, version, at, linked from file_link_changes
            where organization_id = $1 and at <= $3 and ($4::bigint is null or recorded_at <= $4)
        ) l on l.file_id = s.file_id
        where $6 is null
            and (
                -- In the order of the index that is read anyway.
                select count(*) < $9
                from (select from file_link_changes where organization_id = $1 order by file_id, at limit $9) as counted
            )
        offset 0
    ) both_sides
    where file_id is not null and job_id is not null
    limit $7)
    union all
    (select s.file_id, s.s0, s.first_at, s.last_at, l.job_id, l.role, l.version, l.at, l.linked
    from stored s cross join lateral (
        select job_id, role, version, at, linked from file_link_changes
        where organization_id = $1 and file_id = s.file_id and at <= $3 and ($4 is null or recorded_at <= $4)
        offset 0
    ) l
    where $6 is not null
        or (
            select count(*) >= $9
            from (select from file_link_changes where organization_id = $1 order by file_id, at limit $9) as counted
        )
    limit $7)
), told as (
    -- What changed at one instant only is known by now.
    select *, case when first_at = last_at and $4 is null and abs(s0) < 9223372036854775807 then s0::bigint end as held
    from links
)
select 1 as part, file_id, job_id, role, version, at, linked, held, first_at from told
union all
(select 2, changed.file_id, null, null, null, c.at, null, c.delta_bytes, null
from (select distinct file_id from told where held is null) changed cross join lateral (
    select at, delta_bytes from storage_changes
    where organization_id = $1 and file_id = changed.file_id and at <= $3 and ($4 is null or recorded_at <= $4)
    offset 0
) c
limit $8)
