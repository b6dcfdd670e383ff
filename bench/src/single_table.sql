create table single (
    position bigint generated always as identity primary key,
    aggregate text not null,
    aggregate_id uuid not null,
    version bigint not null,
    event_id uuid not null,
    event_name text not null,
    schema bigint not null,
    payload bytea not null,
    metadata json not null,
    occurred_at bigint not null,
    recorded_at bigint not null,
    unique (aggregate_id, aggregate, version)
)
