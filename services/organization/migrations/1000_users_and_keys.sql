-- People. Whatever case an e-mail address is written in, it is one person's.
create table users (
    id         uuid   primary key,
    email      text   not null,
    name       text   not null,
    created_at bigint not null
);

create unique index users_email on users (lower(email));

-- API keys. The key itself is not here: its text follows from its id and the installation's secret.
create table api_keys (
    id              uuid   primary key, -- the id of the command that made it
    organization_id uuid   not null,
    user_id         uuid   references users (id), -- whom it acts for; null when no person made it
    name            text   not null,
    role            text   not null check (role in ('viewer', 'member', 'admin', 'owner')),
    sha256          bytea  not null unique check (octet_length(sha256) = 32),
    fingerprint     bytea  not null, -- of the request that made it: another one under the same id is refused
    created_at      bigint not null,
    revoked_at      bigint
);

create index api_keys_newest on api_keys (organization_id, created_at desc, id desc);

-- For revoking the keys of somebody who is no longer a member.
create index api_keys_user on api_keys (user_id, organization_id) where revoked_at is null;
