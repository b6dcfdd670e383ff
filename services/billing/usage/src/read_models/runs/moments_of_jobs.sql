-- The moments of jobs with their configurations, in the order of their events.
select m.job_id, m.version, m.organization_id, m.kind, m.at, m.recorded_at, m.user_id, m.machine_id,
    machine_type_id(m.machine_type) as machine_type_id, j.configuration_id
from job_moments m left join metered_jobs j using (job_id) where m.job_id = any($1) order by m.job_id, m.version
