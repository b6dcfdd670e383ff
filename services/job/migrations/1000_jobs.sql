-- The service's read models and its leases. Instants are UTC milliseconds.

create table job_configurations (
    id              uuid    primary key,
    organization_id uuid    not null,
    name            text    not null,
    command         jsonb   not null,
    timeout_ms      bigint  not null,
    retired         boolean not null,
    created_at      bigint  not null,
    updated_at      bigint  not null,
    version         bigint  not null
);

create index job_configurations_of_organization on job_configurations (organization_id, id desc);

create table jobs (
    id                   uuid   primary key,
    organization_id      uuid   not null,
    job_configuration_id uuid   not null,
    name                 text   not null,
    command              jsonb  not null,
    timeout_ms           bigint not null,
    user_id              uuid,
    status               text   not null,
    machine_id           uuid,
    exit_code            integer,
    reason               text,
    created_at           bigint not null,
    queued_at            bigint,
    started_at           bigint,
    finished_at          bigint,
    version              bigint not null
);

create index jobs_of_organization on jobs (organization_id, id desc);
create index jobs_by_status on jobs (organization_id, status, id desc);
-- What machines ask for: the oldest job that waits. Small, however many jobs there have been.
create index jobs_waiting on jobs (queued_at, id) where status = 'queued';

create table job_files (
    job_id  uuid not null,
    role    text not null check (role in ('input', 'output')),
    file_id uuid not null,
    primary key (job_id, role, file_id)
);

-- What this service knows of the file service's files.
create table known_files (
    id              uuid   primary key,
    organization_id uuid   not null,
    name            text   not null,
    bytes           bigint not null,
    status          text   not null check (status in ('uploading', 'completed', 'aborted', 'deleted'))
);

-- Which machine works on which job, and until when it is believed to live. Not a read model: written with JobAssigned.
create table leases (
    job_id     uuid   primary key,
    machine_id uuid   not null,
    expires_at bigint not null
);

create index leases_by_expiry on leases (expires_at);
