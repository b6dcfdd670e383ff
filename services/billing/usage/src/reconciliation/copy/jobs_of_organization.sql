-- The next jobs of an organization in the copy.
select job_id from (
    (select job_id from metered_jobs where organization_id = $1 and job_id > $2 order by job_id limit $3)
    union
    (select distinct job_id from job_moments where organization_id = $1 and job_id > $2 order by job_id limit $3)
    union
    (select distinct job_id from file_link_changes where organization_id = $1 and job_id > $2 order by job_id limit $3)
) jobs order by job_id limit $3
