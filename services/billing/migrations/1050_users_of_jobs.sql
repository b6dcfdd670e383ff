-- Who created the jobs that share files is read from an index alone, in which an organization's jobs lie together.
create index metered_jobs_of_organization on metered_jobs (organization_id, job_id) include (user_id, configuration_id);
drop index metered_jobs_by_organization;
