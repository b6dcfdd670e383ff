-- The levels of files: every change of a file with few changes, and the rollups of the others.
--
-- $1 organization · $2 files · $3 last relevant instant · $4 known at, for changes only · $5 limit of changes
-- $6 starts of the spans, and the end of the last one
-- ranges of buckets: $7 widths, $8 width in milliseconds, $9 offset from the start of a bucket to the instant that determines its span,
-- $10 first bucket, $11 exclusive end
-- spans within hours: $12 start, $13 end, $14 whether the span lies at an edge · hours at edges: $15
--
-- The time between the edge of a span and the nearest midnight is added to its own span (sign 1), and subtracted from the span that its UTC
-- day counts in (sign -1).
with files as materialized (
    select u.id, exists (select from metering_file_sums where organization_id = $1 and file_id = u.id) as has_rollups
    from unnest($2::uuid[]) as u (id)
)
(select f.id as file_id, c.at, c.delta_bytes, null::integer as span_index, null::text as s0, null::text as s1
from files f cross join lateral (
    select at, delta_bytes from storage_changes
    where organization_id = $1 and file_id = f.id and at <= $3 and ($4::bigint is null or recorded_at <= $4)
    offset 0
) c
where not f.has_rollups
limit $5)
union all
select f.id, null, null, width_bucket(m.bucket * p.millis + p.shift, $6::bigint[]), sum(m.s0)::text, sum(m.s1)::text
from files f cross join unnest($7::smallint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
        as p (width, millis, shift, first, after)
    cross join lateral (
        select bucket, s0, s1 from metering_file_sums
        where organization_id = $1 and file_id = f.id and width = p.width and bucket >= p.first and bucket < p.after
        offset 0
    ) m
where f.has_rollups
group by 1, 4
union all
select f.id, null, null, k.span_index, sum(k.sign * m.s0)::text, sum(k.sign * m.s1)::text
from files f cross join lateral (
        select bucket, s0, s1 from metering_file_sums
        where organization_id = $1 and file_id = f.id and width = 0 and bucket = any($15::bigint[])
        offset 0
    ) m
    cross join lateral (values
        (1, width_bucket(m.bucket * 3600000, $6)),
        (-1, width_bucket(metering_bucket(m.bucket, 24) * 86400000 + 43199999, $6))
    ) as k (sign, span_index)
where f.has_rollups and k.span_index > 0
group by 1, 4
union all
select f.id, null, null, k.span_index, sum(k.sign * c.delta_bytes)::text, sum(k.sign * c.delta_bytes::numeric * c.at)::text
from files f cross join unnest($12::bigint[], $13::bigint[], $14::boolean[]) as p (first, after, at_edge)
    cross join lateral (
        select at, delta_bytes from storage_changes
        where organization_id = $1 and file_id = f.id and at >= p.first and at < p.after
        offset 0
    ) c
    cross join lateral (values
        (1, width_bucket(c.at, $6)),
        (-1, width_bucket(metering_bucket(c.at, 86400000) * 86400000 + 43199999, $6))
    ) as k (sign, span_index)
where f.has_rollups and case when p.at_edge then k.span_index > 0 else k.sign = 1 end
group by 1, 4
