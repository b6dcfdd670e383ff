select j.*,
    array(select file_id from job_files where job_id = j.id and role = 'input' order by file_id) as input_file_ids,
    array(select file_id from job_files where job_id = j.id and role = 'output' order by file_id) as output_file_ids
from jobs j
where j.organization_id = $1 and j.id = $2
