-- What an answer about usage lists, before the runs of `runs.sql` and the sums of `sums.sql`. Each row says of which part it is:
-- 1 sums, 2 runs of a page of jobs, 3 odd runs, 4 a page of files, 5 their links, 6 changes of files, 7 files below nothing, 8 whether a
-- file is stored that the sum of all may not show.
--
-- $1 organization · $2 to $19 of the sums · $20 first and $21 last instant that matter · $22 known at · $23 files after, $24 at most
-- $25 files that sums say too much of · $26 at most so many odd ones · $27 at most so many changes · $28 whether part 8 matters
-- $29 and $30 of the runs
with stored as materialized (
    select file_id, s0, s1, first_at, last_at, changes, has_sums from metering_files
    where organization_id = $1 and s0 <> 0 and file_id > $23 and first_at < $21 order by file_id limit $24
), page as materialized (
    -- First those that are stored still, then those that were freed since, then those asked for by name.
    select * from stored
    union all
    (select f.* from metering_storage_sums s cross join lateral (
            -- Those freed in 32 days, which are sums with changes; not all that were ever freed.
            select file_id, s0, s1, first_at, last_at, changes, has_sums from metering_files
            where organization_id = $1 and s0 = 0 and metering_bucket(last_at, 2764800000) = s.bucket
                and last_at >= $20 and file_id > $23 and first_at < $21
                -- Where those that are stored fill the page, it ends with the last of them at the latest.
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
    -- Of a file of many changes, what was before the first link, or before the period, is told as one; of a file whose area is computed from its
    -- changes, what was before the period. A full join is never a loop in a loop, whatever is expected.
    select file_id, s1, first_at, last_at, changes, has_sums, case when not unclear then s0 end as kept,
        case when unclear then $20 else greatest($20, linked_at) end as since
    from (
        select page.*, said.file_id as said, said.linked_at, said.unclear
        from page full join (
            select file_id, min(at) as linked_at, bool_or(unclear) as unclear
            from (
                select file_id, at, false as unclear from links union all select u.id, null, true from unnest($25) as u (id)
            ) each_said
            group by file_id
        ) said on said.file_id = page.file_id
        offset 0
    ) both_sides
    where file_id is not null and said is not null
)
(select 3 as part, null::integer as place, job_id as id, user_id as other, started_at as a, ended_at as b, null::text as x,
    null::text as y, null::boolean as said
from runs
where organization_id = $1 and (started_at is null or ended_at < started_at)
    and (ended_at >= $20 or started_at >= $20) and least(started_at, ended_at) <= $21
order by job_id limit $26)
union all
-- A file's area follows from its sums, unless it changed on both sides of an edge: only then are those since then taken out.
-- Where the area is 0, it was stored if its level changed between the edges all the same.
select 4, null, areas.file_id, null, null, null, areas.area::text, null,
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
        -- Of two changes, the two sums tell both: one was first, and one last.
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
select 5, role, file_id, job_id, at, version, null, null, linked from links
union all
(select 6, null, changed.file_id, null, c.at, c.delta_bytes, null, null, null
from changed cross join lateral metering_file_changes(
    $1, file_id, kept, s1, first_at, last_at, changes, has_sums, since, $21, $22
) c
limit $27)
union all
-- What of a file was not known may have kept it from being below nothing. Where it last changed before the period, its sums say enough.
(select 7, null, odd.file_id, null, null, null, null, null, null
from (
    select file_id, s0, last_at from metering_files where organization_id = $1 and lowest < 0 and first_at < $21
    union all
    select f.file_id, f.s0, f.last_at from unnest($25::uuid[]) as u (id)
        join metering_files f on f.organization_id = $1 and f.file_id = u.id
    where f.lowest >= 0
) odd
where $20 < $21 and case when $22::bigint is null and odd.last_at <= $20 then odd.s0 < 0 else exists (
    select from (
        select sum(sum(delta_bytes)) over (order by at) as level, lead(at, 1, $21) over (order by at) as until
        from storage_changes
        where organization_id = $1 and file_id = odd.file_id and at < $21 and ($22::bigint is null or recorded_at <= $22)
        group by at
    ) levels
    where level < 0 and until > $20
) end
order by odd.file_id limit $26)
union all
select 8, null, '00000000-0000-0000-0000-000000000000', null, null, null, null, null, null
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
