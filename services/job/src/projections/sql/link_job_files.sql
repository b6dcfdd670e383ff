insert into job_files (job_id, role, file_id)
select * from unnest($1::uuid[], $2::text[], $3::uuid[])
on conflict do nothing
