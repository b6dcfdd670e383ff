-- Files as they are shown. One row a file, kept after its end: what was stored is looked up long after.
create table files (
    id              uuid   primary key,
    organization_id uuid   not null,
    name            text   not null,
    content_type    text   not null,
    -- What is stored now: grows with each part, 0 after an abort or deletion.
    bytes           bigint not null,
    status          text   not null check (status in ('uploading', 'completed', 'aborted', 'deleted')),
    produced_by_job uuid,
    -- UTC milliseconds.
    created_at      bigint not null,
    completed_at    bigint,
    version         bigint not null
);

-- An organization's files of one status, newest first: ids grow with time.
create index files_of_organization on files (organization_id, status, id desc);
