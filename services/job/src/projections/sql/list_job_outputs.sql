select f.file_id as id, k.name, k.bytes, k.status
from jobs j
join job_files f on f.job_id = j.id and f.role = 'output'
left join known_files k on k.id = f.file_id and k.organization_id = j.organization_id
where j.organization_id = $1 and j.id = $2 and f.file_id > $3
order by f.file_id
limit $4
