insert into job_files (job_id, role, file_id)
select job_id, role, file_id
from unnest($1::uuid[], $2::text[], $3::uuid[]) as link (job_id, role, file_id)
on conflict do nothing
