-- Sums: where spans start, and how much changed before the first and in each.
--
-- $1 organization · $2 where spans start, and where the last one ends · $3 meters, $4 scopes, $5 widths, $6 their milliseconds, $7 from a
-- bucket's start to what says where it counts, $8 first bucket, $9 the one after the last, $10 where they count (null: where they lie)
-- within hours: $11 meters, $12 scopes, $13 from, $14 to, $15 where they count, $16 whether they lie at edges
-- hours at edges: $17 which, $18 of storage, $19 of runs in which scopes
--
-- What lies between the edge of a span and the midnight next to it is added where it lies, and taken out of where its day counts.
select 1 as part, coalesce(p.place, width_bucket(m.bucket * p.millis + p.shift, $2::bigint[])) as place,
    '00000000-0000-0000-0000-000000000000'::uuid as id, null::uuid as other, 1::bigint as a, 0::bigint as b,
    sum(m.s0)::text as x, sum(m.s1)::text as y, null::boolean as said
from unnest($3::smallint[], $5::smallint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::integer[])
        as p (meter, width, millis, shift, first, after, place)
    cross join lateral (
        select bucket, s0, s1 from metering_storage_sums
        where organization_id = $1 and width = p.width and bucket >= p.first and bucket < p.after
    ) m
where p.meter = 1
group by 2
union all
select 1, coalesce(p.place, width_bucket(m.bucket * p.millis + p.shift, $2)), m.subject, null, 2, p.scope,
    sum(m.s0)::text, sum(m.s1)::text, null
from unnest($3::smallint[], $4::smallint[], $5::smallint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
        $10::integer[])
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
        (1, width_bucket(m.bucket * 3600000, $2)),
        (-1, width_bucket(metering_bucket(m.bucket, 24) * 86400000 + 43199999, $2))
    ) as k (sign, place)
where $18 and m.organization_id = $1 and m.width = 0 and m.bucket = any($17::bigint[])
    and k.place > 0
group by k.place
union all
select 1, k.place, m.subject, null, 2, m.scope, sum(k.sign * m.s0)::text, sum(k.sign * m.s1)::text, null
from metering_run_sums m
    cross join lateral (values
        (1, width_bucket(m.bucket * 3600000, $2)),
        (-1, width_bucket(metering_bucket(m.bucket, 24) * 86400000 + 43199999, $2))
    ) as k (sign, place)
where m.organization_id = $1 and m.scope = any($19::smallint[]) and m.width = 0 and m.bucket = any($17)
    and k.place > 0
group by m.scope, m.subject, k.place
union all
select 1, k.place, '00000000-0000-0000-0000-000000000000', null, 1, 0,
    sum(k.sign * c.delta_bytes)::text, sum(k.sign * c.delta_bytes::numeric * c.at)::text, null
from unnest($11::smallint[], $12::smallint[], $13::bigint[], $14::bigint[], $15::integer[], $16::boolean[])
        as p (meter, scope, first, after, place, at_edge)
    cross join lateral (
        select at, delta_bytes from storage_changes
        where organization_id = $1 and at >= p.first and at < p.after
    ) c
    cross join lateral (values
        (1, coalesce(p.place, width_bucket(c.at, $2))),
        (-1, width_bucket(metering_bucket(c.at, 86400000) * 86400000 + 43199999, $2))
    ) as k (sign, place)
where p.meter = 1 and case when p.at_edge then k.place > 0 else k.sign = 1 end
group by k.place
union all
-- A run that ended before it started changes nothing.
select 1, k.place, k.subject, null, 2, p.scope, sum(k.sign * c.delta)::text, sum(k.sign * c.delta::numeric * c.at)::text, null
from unnest($11::smallint[], $12::smallint[], $13::bigint[], $14::bigint[], $15::integer[], $16::boolean[])
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
            (1, coalesce(p.place, width_bucket(c.at, $2))),
            (-1, width_bucket(metering_bucket(c.at, 86400000) * 86400000 + 43199999, $2))
        ) as k (sign, place)
    ) k
where p.meter = 2 and case when p.at_edge then k.place > 0 else k.sign = 1 end
group by p.scope, k.subject, k.place
