-- Lists of a usage report: anomalous runs, a page of files, their links and changes, and negative files. The runs of `runs.sql` and the
-- rollups of `rollup_sums.sql` follow. `row_kind` names the kind of each row; the Rust module `usage_row` documents its columns.
--
-- $1 organization · $2 to $19 of the rollups · $20 first and $21 last relevant instant · $22 known at
-- $23 page of files: after this id, $24 limit · $25 files with records later than `known at` · $26 limit of anomalies
-- $27 limit of changes · $28 whether row kind 8 is requested · $29 and $30 of the runs
with stored as materialized (
    select file_id, s0, s1, first_at, last_at, changes, has_sums from metering_files
    where organization_id = $1 and s0 <> 0 and file_id > $23 and first_at < $21 order by file_id limit $24
), page as materialized (
    -- Files that are stored, files freed since the first instant, and files requested by id.
    select * from stored
    union all
    (select f.* from metering_storage_sums s cross join lateral (
            -- Only 32-day buckets with changes can contain freed files, so not all files that were ever freed are read.
            select file_id, s0, s1, first_at, last_at, changes, has_sums from metering_files
            where organization_id = $1 and s0 = 0 and metering_bucket(last_at, 2764800000) = s.bucket
                and last_at >= $20 and file_id > $23 and first_at < $21
                -- If stored files fill the page, it ends with the last of them at the latest.
                and file_id <= coalesce(
                    (select file_id from stored order by file_id offset greatest($24 - 1, 0) limit 1),
                    'ffffffff-ffff-ffff-ffff-ffffffffffff'
                )
            order by file_id limit $24
        ) f
        where s.organization_id = $1 and s.width = 2 and s.bucket >= metering_bucket($20, 2764800000)
        order by f.file_id limit $24)
    union all
    (select f.* from unnest($25::uuid[]) as u (id) cross join lateral (
            select file_id, s0, s1, first_at, last_at, changes, has_sums from metering_files
            where organization_id = $1 and file_id = u.id and s0 = 0 and last_at < $20 and file_id > $23
        ) f
        order by f.file_id limit $24)
    order by file_id limit $24
), links as materialized (
    select page.file_id, l.job_id, l.role, l.version, l.at, l.linked
    from page cross join lateral (
        select job_id, role, version, at, linked from file_link_changes
        where organization_id = $1 and file_id = page.file_id and at <= $21 and ($22::bigint is null or recorded_at <= $22)
    ) l
    limit $27
), changed as (
    -- Changes before the first link or before the period are merged into one; for a file with an area computed from its changes, only those
    -- before the period. A full join is never planned as a nested loop, regardless of the estimates.
    select file_id, s1, first_at, last_at, changes, has_sums, case when not has_late_records then s0 end as known_s0,
        case when has_late_records then $20 else greatest($20, linked_at) end as since
    from (
        select page.*, relevant.file_id as relevant_id, relevant.linked_at, relevant.has_late_records
        from page full join (
            select file_id, min(at) as linked_at, bool_or(has_late_records) as has_late_records
            from (
                select file_id, at, false as has_late_records from links
                union all
                select u.id, null, true from unnest($25) as u (id)
            ) reasons
            group by file_id
        ) relevant on relevant.file_id = page.file_id
        offset 0
    ) both_sides
    where file_id is not null and relevant_id is not null
)
-- Runs that may be anomalous.
(select 3 as row_kind, null::integer as span_index, job_id as subject_id, user_id as related_id,
    null::uuid as configuration_id, null::integer as meter, null::integer as scope, null::text as s0,
    null::text as s1, started_at as at, ended_at, null::bigint as version, null::integer as role,
    null::bigint as delta_bytes, null::bigint as held_since, null::text as byte_ms, null::boolean as flag
from runs
where organization_id = $1 and (started_at is null or ended_at < started_at)
    and (ended_at >= $20 or started_at >= $20) and least(started_at, ended_at) <= $21
order by job_id limit $26)
union all
-- The page of files. The area of a file follows from its sums, unless it changed on both sides of an instant; only then the later changes
-- are subtracted. A file with area 0 was stored if its level changed within the period.
select 4, null, areas.file_id, null, null, null, null, null, null, null, null, null, null, null, null,
    areas.area::text,
    case when areas.area <> 0 then true else exists (
        select from storage_changes
        where organization_id = $1 and file_id = areas.file_id and at > $20 and at < $21
        group by at having sum(delta_bytes) <> 0
    ) end
from (
    select file_id, case when last_at < $20 then s0 * ($21 - $20) else s0 * $21 - s1 end as area
    from page where last_at < $20 or (first_at >= $20 and last_at < $21)
    union all
    select page.file_id, (page.s0 - later.end0) * $21 - (page.s1 - later.end1) - (page.s0 - later.start0) * $20 + (page.s1 - later.start1)
    from page cross join lateral (
        -- The two sums determine two changes: one is the first, the other the last.
        select case when first_at < $20 then last_delta else s0 end as start0,
            case when first_at < $20 then last_delta * last_at else s1 end as start1,
            case when last_at >= $21 then last_delta else 0 end as end0, case when last_at >= $21 then last_delta * last_at else 0 end as end1
        from (select div(s1 - s0 * first_at, nullif(last_at - first_at, 0)) as last_delta) two
        where not has_sums and changes = 2 and first_at < last_at
        union all
        select coalesce(sum(delta_bytes), 0), coalesce(sum(delta_bytes::numeric * at), 0),
            coalesce(sum(delta_bytes) filter (where at >= $21), 0),
            coalesce(sum(delta_bytes::numeric * at) filter (where at >= $21), 0)
        from storage_changes
        where (changes = 2 and first_at < last_at) is not true and not page.has_sums
            and organization_id = $1 and file_id = page.file_id and at >= $20
        having (changes = 2 and first_at < last_at) is not true and not page.has_sums
        union all
        select at_start.s0, at_start.s1, at_end.s0, at_end.s1
        from metering_file_since($1, page.file_id, $20) at_start cross join metering_file_since($1, page.file_id, $21) at_end
        where page.has_sums
        offset 0
    ) later
    where page.last_at >= $20 and not (page.first_at >= $20 and page.last_at < $21)
) areas
union all
select 5, null, file_id, job_id, null, null, null, null, null, at, null, version, role, null, null, null, linked
from links
union all
(select 6, null, changed.file_id, null, null, null, null, null, null, c.at, null, null, null, c.delta_bytes, null,
    null, null
from changed cross join lateral metering_file_changes(
    $1, file_id, known_s0, s1, first_at, last_at, changes, has_sums, since, $21, $22
) c
limit $27)
union all
-- Files with a negative level in the period. Without the records later than `known at`, a file may have been negative. For a file that last
-- changed before the period, its sums are enough.
(select 7, null, candidate.file_id, null, null, null, null, null, null, null, null, null, null, null, null, null, null
from (
    select file_id, s0, last_at from metering_files where organization_id = $1 and lowest < 0 and first_at < $21
    union all
    select f.file_id, f.s0, f.last_at from unnest($25::uuid[]) as u (id)
        join metering_files f on f.organization_id = $1 and f.file_id = u.id
    where f.lowest >= 0
) candidate
where $20 < $21 and case when $22::bigint is null and candidate.last_at <= $20 then candidate.s0 < 0 else exists (
    select from (
        select sum(sum(delta_bytes)) over (order by at) as level, lead(at, 1, $21) over (order by at) as until
        from storage_changes
        where organization_id = $1 and file_id = candidate.file_id and at < $21 and ($22::bigint is null or recorded_at <= $22)
        group by at
    ) levels
    where level < 0 and until > $20
) end
order by candidate.file_id limit $26)
union all
-- One row if the total of all files may hide the level of a stored file: it was negative at some time, or has late records.
select 8, null, '00000000-0000-0000-0000-000000000000', null, null, null, null, null, null, null, null, null, null,
    null, null, null, null
where $28::boolean and (
    exists (
        select from metering_files f
        where f.organization_id = $1 and f.lowest < 0 and f.first_at <= $21
            and case when $22::bigint is null and f.last_at <= $21 then f.s0 <> 0 else (
                select sum(delta_bytes) <> 0 from storage_changes
                where organization_id = $1 and file_id = f.file_id and at <= $21 and ($22::bigint is null or recorded_at <= $22)
            ) end
    ) or exists (
        select from unnest($25::uuid[]) as u (id) where (
            select sum(delta_bytes) <> 0 from storage_changes
            where organization_id = $1 and file_id = u.id and at <= $21 and ($22::bigint is null or recorded_at <= $22)
        )
    )
)
