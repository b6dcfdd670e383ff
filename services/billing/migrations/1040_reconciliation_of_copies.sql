-- Whether billing's copy of other services' events is what those services have. Instants are UTC milliseconds.

-- Two sides: sums compared with the copy, the copy compared with its owners.
alter table reconciliation_differences add column side text not null default 'sums' check (side in ('sums', 'copy'));
create index reconciliation_differences_by_side on reconciliation_differences (side, seen_at);

-- Where the comparison with an owner is: it walks the owner's streams by id, a page a step, and takes a sample of what billing has of
-- the next organization.
create table reconciliation_copies (
    aggregate         text   primary key check (aggregate in ('file', 'job')),
    round             bigint not null default 0, -- how often all of the owner's streams have been walked
    round_began_at    bigint,
    listed            uuid,                      -- the last of the owner's streams looked at in this round
    organization      uuid,                      -- the last organization that a sample was taken of
    checks            bigint not null default 0,
    rows_compared     bigint not null default 0,
    last_check_at     bigint,
    skipped           bigint not null default 0, -- streams that were longer than one step compares
    unreachable       bigint not null default 0, -- steps in which the owner gave no answer
    unreachable_since bigint,                    -- null while it answers
    unreachable_why   text,
    busy_until        bigint not null default 0  -- a process takes a step; none is waited for longer
);
insert into reconciliation_copies (aggregate) values ('file'), ('job');

-- The last file or job of an organization that was in a sample.
create table reconciliation_places (
    organization_id uuid not null,
    aggregate       text not null,
    after           uuid not null,
    primary key (organization_id, aggregate)
);

-- What the sample of jobs is taken from, beside their starts, ends and links.
create index metered_jobs_by_organization on metered_jobs (organization_id, job_id);
