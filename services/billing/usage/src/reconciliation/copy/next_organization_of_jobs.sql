-- The next organization with copied job events.
select min(organization_id::text)::uuid from (
    (select organization_id from metered_jobs where organization_id > $1 order by organization_id limit 1)
    union all
    (select organization_id from job_moments where organization_id > $1 order by organization_id limit 1)
    union all
    (select organization_id from file_link_changes where organization_id > $1 order by organization_id limit 1)
) following
