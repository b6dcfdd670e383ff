-- States of aggregates as blobs, written with the events they stand for (PgBlobStates).
create table states (
    aggregate_id uuid   not null,
    aggregate    text   not null,
    version      bigint not null check (version > 0),
    schema       bigint not null, -- the shape of the state: STATE_SCHEMA of the program that wrote it
    state        bytea  not null,
    primary key (aggregate_id, aggregate)
) with (fillfactor = 70); -- room for updates in place: every command writes its aggregate's row

-- The newest snapshot of each aggregate: a cache, which may be emptied at any time.
create table snapshots (
    aggregate_id uuid   not null,
    aggregate    text   not null,
    version      bigint not null check (version > 0),
    schema       bigint not null,
    state        bytea  not null,
    primary key (aggregate_id, aggregate)
);
