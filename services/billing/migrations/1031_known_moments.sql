-- What was known of runs at an earlier time is paired from the starts and ends that were known then.
create index job_moments_by_record on job_moments (organization_id, recorded_at) include (job_id, at);
drop index runs_by_start_record;
drop index runs_by_end_record;
