-- A sample of jobs that rotates with the rounds.
with jobs as (select distinct job_id from job_moments where organization_id = $1)
select job_id from jobs order by job_id
offset ($2 * $3) % greatest((select count(*) from jobs), 1) limit $3
