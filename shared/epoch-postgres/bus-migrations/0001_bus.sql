-- Messages of all topics, in the order they were published. The body and headers are those any other bus would carry.
create table epoch_bus.messages (
    number    bigint generated always as identity primary key,
    aggregate text   not null,
    headers   json   not null,
    body      bytea  not null
);
create index messages_by_aggregate on epoch_bus.messages (aggregate, number);

-- How far each group has consumed.
create table epoch_bus.groups (
    name   text   primary key,
    number bigint not null
);
