-- Creates the organizations of a batch; rows without created_at belong to existing organizations.
insert into organizations (id, name, storage_bytes, created_at, version)
select id, name, coalesce(storage_bytes, 0), created_at, version
from unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
    as change (id, name, storage_bytes, created_at, version)
where created_at is not null
