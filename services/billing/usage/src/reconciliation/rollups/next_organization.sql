-- The organization after an id, among those with usage.
select min(organization_id::text)::uuid from (
    (select organization_id from metering_sums where organization_id > $1 order by organization_id limit 1)
    union all
    (select organization_id from storage_changes where organization_id > $1 order by organization_id limit 1)
    union all
    (select organization_id from runs where organization_id > $1 order by organization_id limit 1)
) following
