-- The runs of a page of jobs, as many as the page has. Other lists precede them, and the rollups of `rollup_sums.sql` follow.
--
-- $1 organization · $20 first and $21 last relevant instant · $29 page of jobs: after this id, $30 limit
(with longest as (
    -- The longest run bounds how long before the period a run may have started that overlaps it, unless it ended before it started.
    select coalesce(max(ended_at - started_at), 0) as millis from runs
    where organization_id = $1 and ended_at >= started_at
), overlapping as materialized (
    select r.job_id, r.number, r.user_id, r.started_at, r.ended_at
    from longest, runs r
    where $30 > 0 and r.organization_id = $1 and r.ended_at >= r.started_at and r.ended_at >= $20
        and r.started_at >= $20 - longest.millis and r.started_at <= $21 and r.job_id > $29
    union
    select job_id, number, user_id, started_at, ended_at from runs
    where $30 > 0 and organization_id = $1 and ended_at is null and started_at <= $21 and job_id > $29
    union
    select job_id, number, user_id, started_at, ended_at from runs
    where $30 > 0 and organization_id = $1 and (started_at is null or ended_at < started_at)
        and (ended_at >= $20 or started_at >= $20) and least(started_at, ended_at) <= $21 and job_id > $29
), last_job as (
    select job_id as id from (select distinct job_id from overlapping order by job_id limit $30) page order by job_id desc limit 1
)
select 2, null::integer, job_id, user_id, null::uuid, null::integer, null::integer, null::text, null::text,
    started_at, ended_at, null::bigint, null::integer, null::bigint, null::bigint, null::text, null::boolean
from overlapping where job_id <= (select id from last_job))
