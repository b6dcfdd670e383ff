delete from job_files f
using unnest($1::uuid[], $2::text[], $3::uuid[]) as gone (job_id, role, file_id)
where f.job_id = gone.job_id and f.role = gone.role and f.file_id = gone.file_id
