-- Buckets of 1,024 days and the sums of their buckets of 32 days.
select coalesce(wide.meter, narrow.meter) as meter, coalesce(wide.scope, narrow.scope) as scope,
    coalesce(wide.bucket, narrow.bucket) as bucket, coalesce(wide.subject, narrow.subject) as subject,
    coalesce(wide.s0::text || ' ' || wide.s1::text, 'nothing') as stored,
    coalesce(narrow.s0::text || ' ' || narrow.s1::text, 'nothing') as recomputed
from (select * from metering_sums where organization_id = $1 and width = 3) wide
full join (
    select meter, scope, metering_bucket(bucket, 32) as bucket, subject, sum(s0) as s0, sum(s1) as s1
    from metering_sums where organization_id = $1 and width = 2 group by 1, 2, 3, 4
) narrow using (meter, scope, bucket, subject)
