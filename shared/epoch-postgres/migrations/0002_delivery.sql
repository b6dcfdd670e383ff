-- How far each subscription is with each aggregate. Locked while events are applied, in the order of the primary key.
create table cursors (
    subscription text   not null,
    aggregate_id uuid   not null,
    aggregate    text   not null,
    version      bigint not null,
    parked       text   check (parked in ('gap', 'failed')),
    primary key (subscription, aggregate_id, aggregate)
) with (fillfactor = 70); -- room for updates in place: every event moves a cursor

create index cursors_parked on cursors (subscription) where parked is not null;

-- Events of parked aggregates, waiting in version order. Skipped ones stay, with the time they were skipped at.
create table dead_letters (
    subscription text   not null,
    aggregate_id uuid   not null,
    aggregate    text   not null,
    version      bigint not null,
    position     bigint not null,
    event_id     uuid   not null,
    event_name   text   not null,
    schema       bigint not null,
    payload      bytea  not null,
    metadata     json   not null,
    occurred_at  bigint not null,
    recorded_at  bigint not null,
    error        text,
    attempts     integer not null default 0,
    queued_at    bigint not null,
    skipped_at   bigint,
    primary key (subscription, aggregate_id, aggregate, version)
);

-- How far the relay has published. The fence grows with every new leader; an old one can't move the cursor any more.
create table relays (
    name     text   primary key,
    position bigint not null default 0,
    fence    bigint not null default 0
);
