-- Rollups: the sums of level changes before the first span (span index 0) and within each span (from 1).
--
-- $1 organization · $2 starts of the spans, and the end of the last one
-- ranges of buckets: $3 meters, $4 scopes, $5 widths, $6 width in milliseconds, $7 offset from the start of a bucket to the instant that
-- determines its span, $8 first bucket, $9 exclusive end, $10 fixed span index or null
-- spans within hours: $11 meters, $12 scopes, $13 start, $14 end, $15 fixed span index or null, $16 whether the span lies at an edge
-- hours at edges: $17 hours, $18 whether to read storage, $19 scopes of runs
--
-- The time between the edge of a span and the nearest midnight is added to its own span (sign 1), and subtracted from the span that its UTC
-- day counts in (sign -1).
select 1 as row_kind, coalesce(p.span_index, width_bucket(m.bucket * p.millis + p.shift, $2::bigint[])) as span_index,
    '00000000-0000-0000-0000-000000000000'::uuid as subject_id, null::uuid as related_id,
    null::uuid as configuration_id, 1 as meter, 0 as scope, sum(m.s0)::text as s0, sum(m.s1)::text as s1,
    null::bigint as at, null::bigint as ended_at, null::bigint as version, null::integer as role,
    null::bigint as delta_bytes, null::bigint as held_since, null::text as byte_ms, null::boolean as flag
from unnest($3::smallint[], $5::smallint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::integer[])
        as p (meter, width, millis, shift, first, after, span_index)
    cross join lateral (
        select bucket, s0, s1 from metering_storage_sums
        where organization_id = $1 and width = p.width and bucket >= p.first and bucket < p.after
    ) m
where p.meter = 1
group by 2
union all
select 1, coalesce(p.span_index, width_bucket(m.bucket * p.millis + p.shift, $2)), m.subject, null, null, 2, p.scope,
    sum(m.s0)::text, sum(m.s1)::text, null, null, null, null, null, null, null, null
from unnest($3::smallint[], $4::smallint[], $5::smallint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
        $10::integer[])
        as p (meter, scope, width, millis, shift, first, after, span_index)
    cross join lateral (
        select bucket, subject, s0, s1 from metering_run_sums
        where organization_id = $1 and scope = p.scope and width = p.width and bucket >= p.first and bucket < p.after
    ) m
where p.meter = 2
group by p.scope, m.subject, 2
union all
select 1, k.span_index, '00000000-0000-0000-0000-000000000000', null, null, 1, 0, sum(k.sign * m.s0)::text,
    sum(k.sign * m.s1)::text, null, null, null, null, null, null, null, null
from metering_storage_sums m
    cross join lateral (values
        (1, width_bucket(m.bucket * 3600000, $2)),
        (-1, width_bucket(metering_bucket(m.bucket, 24) * 86400000 + 43199999, $2))
    ) as k (sign, span_index)
where $18 and m.organization_id = $1 and m.width = 0 and m.bucket = any($17::bigint[])
    and k.span_index > 0
group by k.span_index
union all
select 1, k.span_index, m.subject, null, null, 2, m.scope, sum(k.sign * m.s0)::text, sum(k.sign * m.s1)::text, null,
    null, null, null, null, null, null, null
from metering_run_sums m
    cross join lateral (values
        (1, width_bucket(m.bucket * 3600000, $2)),
        (-1, width_bucket(metering_bucket(m.bucket, 24) * 86400000 + 43199999, $2))
    ) as k (sign, span_index)
where m.organization_id = $1 and m.scope = any($19::smallint[]) and m.width = 0 and m.bucket = any($17)
    and k.span_index > 0
group by m.scope, m.subject, k.span_index
union all
select 1, k.span_index, '00000000-0000-0000-0000-000000000000', null, null, 1, 0, sum(k.sign * c.delta_bytes)::text,
    sum(k.sign * c.delta_bytes::numeric * c.at)::text, null, null, null, null, null, null, null, null
from unnest($11::smallint[], $12::smallint[], $13::bigint[], $14::bigint[], $15::integer[], $16::boolean[])
        as p (meter, scope, first, after, span_index, at_edge)
    cross join lateral (
        select at, delta_bytes from storage_changes
        where organization_id = $1 and at >= p.first and at < p.after
    ) c
    cross join lateral (values
        (1, coalesce(p.span_index, width_bucket(c.at, $2))),
        (-1, width_bucket(metering_bucket(c.at, 86400000) * 86400000 + 43199999, $2))
    ) as k (sign, span_index)
where p.meter = 1 and case when p.at_edge then k.span_index > 0 else k.sign = 1 end
group by k.span_index
union all
-- A run that ended before it started counts 0.
select 1, k.span_index, k.subject, null, null, 2, p.scope, sum(k.sign * c.delta)::text,
    sum(k.sign * c.delta::numeric * c.at)::text, null, null, null, null, null, null, null, null
from unnest($11::smallint[], $12::smallint[], $13::bigint[], $14::bigint[], $15::integer[], $16::boolean[])
        as p (meter, scope, first, after, span_index, at_edge)
    cross join lateral (
        select 1 as delta, started_at as at, user_id, configuration_id, machine_id, machine_type_id from runs
        where organization_id = $1 and started_at >= p.first and started_at < p.after
            and (ended_at is null or ended_at >= started_at)
        union all
        select -1, ended_at, user_id, configuration_id, machine_id, machine_type_id from runs
        where organization_id = $1 and ended_at >= p.first and ended_at < p.after and ended_at >= started_at
    ) c
    cross join lateral (
        select sign, span_index, coalesce(
            case p.scope when 1 then c.user_id when 2 then c.configuration_id when 3 then c.machine_id
                when 4 then c.machine_type_id end,
            '00000000-0000-0000-0000-000000000000'
        ) as subject
        from (values
            (1, coalesce(p.span_index, width_bucket(c.at, $2))),
            (-1, width_bucket(metering_bucket(c.at, 86400000) * 86400000 + 43199999, $2))
        ) as k (sign, span_index)
    ) k
where p.meter = 2 and case when p.at_edge then k.span_index > 0 else k.sign = 1 end
group by p.scope, k.subject, k.span_index
