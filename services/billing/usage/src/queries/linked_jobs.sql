-- A page of jobs with a link to a file up to the last instant.
--
-- $1 organization · $21 last relevant instant · $29 page of jobs: after this id, $30 limit
(select distinct 11, null::integer, job_id, null::uuid, null::uuid, null::integer, null::integer, null::text, null::text,
    null::bigint, null::bigint, null::bigint, null::integer, null::bigint, null::bigint, null::text, null::boolean
from file_link_changes where organization_id = $1 and job_id > $29 and at <= $21 and linked order by job_id limit $30)
