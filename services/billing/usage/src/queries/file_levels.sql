-- How the levels of some files changed: 1 each change of files that have few, 2 sums of the others.
--
-- $1 organization · $2 files · $3 last instant that matters · $4 known at, for 1; the sums don't ask · $5 at most so many changes
-- sums: $6 where spans start, and where the last one ends · $7 widths, $8 their milliseconds, $9 from a bucket's start to what says
-- where it counts, $10 first bucket, $11 the one after the last
-- within hours: $12 from, $13 to, $14 whether they lie at edges · hours at edges: $15 which
--
-- What lies between the edge of a span and the midnight next to it is added where it lies, and taken out of where its day counts.
with files as materialized (
    select u.id, exists (select from metering_file_sums where organization_id = $1 and file_id = u.id) as busy
    from unnest($2::uuid[]) as u (id)
)
(select 1 as part, f.id as file_id, null::integer as place, c.at, c.delta_bytes, null::text as s0, null::text as s1
from files f cross join lateral (
    select at, delta_bytes from storage_changes
    where organization_id = $1 and file_id = f.id and at <= $3 and ($4::bigint is null or recorded_at <= $4)
    offset 0
) c
where not f.busy
limit $5)
union all
select 2, f.id, width_bucket(m.bucket * p.millis + p.shift, $6::bigint[]), null, null, sum(m.s0)::text, sum(m.s1)::text
from files f cross join unnest($7::smallint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
        as p (width, millis, shift, first, after)
    cross join lateral (
        select bucket, s0, s1 from metering_file_sums
        where organization_id = $1 and file_id = f.id and width = p.width and bucket >= p.first and bucket < p.after
        offset 0
    ) m
where f.busy
group by 2, 3
union all
select 2, f.id, k.place, null, null, sum(k.sign * m.s0)::text, sum(k.sign * m.s1)::text
from files f cross join lateral (
        select bucket, s0, s1 from metering_file_sums
        where organization_id = $1 and file_id = f.id and width = 0 and bucket = any($15::bigint[])
        offset 0
    ) m
    cross join lateral (values
        (1, width_bucket(m.bucket * 3600000, $6)),
        (-1, width_bucket(metering_bucket(m.bucket, 24) * 86400000 + 43199999, $6))
    ) as k (sign, place)
where f.busy and k.place > 0
group by 2, 3
union all
select 2, f.id, k.place, null, null, sum(k.sign * c.delta_bytes)::text, sum(k.sign * c.delta_bytes::numeric * c.at)::text
from files f cross join unnest($12::bigint[], $13::bigint[], $14::boolean[]) as p (first, after, at_edge)
    cross join lateral (
        select at, delta_bytes from storage_changes
        where organization_id = $1 and file_id = f.id and at >= p.first and at < p.after
        offset 0
    ) c
    cross join lateral (values
        (1, width_bucket(c.at, $6)),
        (-1, width_bucket(metering_bucket(c.at, 86400000) * 86400000 + 43199999, $6))
    ) as k (sign, place)
where f.busy and case when p.at_edge then k.place > 0 else k.sign = 1 end
group by 2, 3
