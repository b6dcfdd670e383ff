delete from job_files f
using unnest($1::uuid[], $2::text[], $3::uuid[]) as link (job_id, role, file_id)
where f.job_id = link.job_id and f.role = link.role and f.file_id = link.file_id
