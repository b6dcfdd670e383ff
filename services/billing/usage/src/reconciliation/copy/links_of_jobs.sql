-- Stored links of jobs.
select l.file_id, l.job_id, l.role, l.version, l.organization_id, l.at, l.linked, l.recorded_at,
    l.event_id from unnest($1::uuid[], $2::uuid[]) as u (organization_id, job_id)
join file_link_changes l using (organization_id, job_id) limit $3
