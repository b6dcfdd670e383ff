-- 11 a page of jobs that files were ever linked to by then.
--
-- $1 organization · $21 last instant that matters · $29 jobs after, $30 at most
(select distinct 11, null::integer, job_id, null::uuid, null::bigint, null::bigint, null, null, null::boolean
from file_link_changes where organization_id = $1 and job_id > $29 and at <= $21 and linked order by job_id limit $30)
