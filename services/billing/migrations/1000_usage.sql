-- What files and jobs did that is metered, from the topics file and job. Instants are UTC milliseconds.

create table storage_changes (
    organization_id uuid   not null,
    file_id         uuid   not null,
    at              bigint not null, -- when it happened
    delta_bytes     bigint not null, -- stored, or if negative, freed
    recorded_at     bigint not null  -- when the file service took it
);

-- An answer sums what was before the period and reads what is in it, both from the index alone.
create index storage_changes_by_time on storage_changes (organization_id, at) include (file_id, delta_bytes);

create table runs (
    job_id          uuid   not null,
    number          bigint not null, -- the version of the event that opened it
    organization_id uuid   not null,
    user_id         uuid,            -- null when it is attributed to nobody
    started_at      bigint,          -- null when it ended without ever having started
    ended_at        bigint,          -- null while it goes on
    primary key (job_id, number),
    check (started_at is not null or ended_at is not null)
);

-- The runs of a period are those that started or ended in it, and those that go on.
create index runs_by_start on runs (organization_id, started_at);
create index runs_by_end on runs (organization_id, ended_at);
