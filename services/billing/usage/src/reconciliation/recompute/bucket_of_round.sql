-- The bucket of 32 days that the round selects.
with buckets as (
    select distinct bucket from metering_sums where organization_id = $1 and width = 2
) select bucket from buckets order by bucket offset $2 % greatest((select count(*) from buckets), 1) limit 1
