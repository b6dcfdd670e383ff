-- Which jobs use which files: what each event about it said, in the order of the job's events. Instants are UTC milliseconds.

create table file_link_changes (
    organization_id uuid     not null,
    file_id         uuid     not null,
    job_id          uuid     not null,
    role            smallint not null, -- 1 input, 2 output
    version         bigint   not null, -- of the event among the job's
    at              bigint   not null, -- when it happened
    linked          boolean  not null, -- linked, or unlinked
    recorded_at     bigint   not null, -- when the job service took it
    primary key (organization_id, file_id, job_id, role, version)
);

create index file_link_changes_by_job on file_link_changes (organization_id, job_id, file_id);
