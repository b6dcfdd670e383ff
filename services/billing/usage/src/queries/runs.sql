-- 2 the runs of a page of jobs, which are as many as their page, between what reads them and the sums of `sums.sql`.
--
-- $1 organization · $20 first and $21 last instant that matter · $29 jobs after, $30 at most
(with longest as (
    -- How long the longest run took bounds how long before a period one can have started that ended in order and still ran in it.
    select coalesce(max(ended_at - started_at), 0) as millis from runs
    where organization_id = $1 and ended_at >= started_at
), touched as materialized (
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
    select job_id as id from (select distinct job_id from touched order by job_id limit $30) page order by job_id desc limit 1
)
select 2 as part, null::integer as place, job_id as id, user_id as other, started_at as a, ended_at as b, null::text as x,
    null::text as y, null::boolean as said
from touched where job_id <= (select id from last_job))
