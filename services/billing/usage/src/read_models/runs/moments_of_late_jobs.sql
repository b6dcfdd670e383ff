-- All moments of jobs that have moments recorded after $2, and any moment up to $3.
with late as (
    select distinct l.job_id from job_moments l where l.organization_id = $1 and l.recorded_at > $2
        and (l.at <= $3 or exists (select 1 from job_moments e where e.job_id = l.job_id and e.at <= $3))
) select m.job_id, m.version, m.organization_id, m.kind, m.at, m.recorded_at, m.user_id, m.machine_id,
    machine_type_id(m.machine_type) as machine_type_id, j.configuration_id
from late join job_moments m using (job_id) left join metered_jobs j using (job_id)
order by m.job_id, m.version limit $4
