-- The read model of organizations.
create table organizations (
    id            uuid   primary key,
    name          text   not null,
    storage_bytes bigint not null,
    created_at    bigint not null,
    version       bigint not null
);

create table members (
    organization_id uuid not null,
    user_id         uuid not null,
    role            text not null,
    primary key (organization_id, user_id)
);
