-- When jobs started and ended, as their events say. A job's runs are made of all of them by one rule, so that an event that is heard
-- late gives the runs that it would have given in time. Instants are UTC milliseconds.

create table job_moments (
    job_id          uuid     not null,
    version         bigint   not null, -- of the event among the job's
    organization_id uuid     not null,
    kind            smallint not null, -- 1 started, 2 ended as only what has run can end, 3 ended, whether it has run or not
    at              bigint   not null,
    recorded_at     bigint   not null,
    user_id         uuid,
    machine_id      uuid,
    machine_type    text,
    primary key (job_id, version)
);

-- What reconciliation takes its sample of jobs from.
create index job_moments_by_job on job_moments (organization_id, job_id);

-- What there is already. An end's own version isn't known any more; it comes after its start.
insert into job_moments (job_id, version, organization_id, kind, at, recorded_at, user_id, machine_id, machine_type)
select job_id, number, organization_id, 1, started_at, coalesce(started_recorded_at, started_at), user_id, machine_id, 'default'
from runs where started_at is not null;
insert into job_moments (job_id, version, organization_id, kind, at, recorded_at)
select job_id, case when started_at is null then number else number + 1 end, organization_id, 2, ended_at,
    coalesce(ended_recorded_at, ended_at)
from runs where ended_at is not null
on conflict do nothing;
