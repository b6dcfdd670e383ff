-- One key a person, wrapped by a master key that is not in the database. A forgotten person's row stays without the key, so that
-- nobody makes a new one, and so that what is sealed with it is known to be forgotten.
create table subject_keys (
    subject      uuid    primary key,
    key_id       uuid    unique, -- null when the person was forgotten before there was a key
    master       integer,
    wrapped      bytea,
    forgotten_at bigint,
    check ((wrapped is null) = (forgotten_at is not null)),
    check (wrapped is null or (key_id is not null and master is not null))
);

create index subject_keys_master on subject_keys (master) where wrapped is not null;
