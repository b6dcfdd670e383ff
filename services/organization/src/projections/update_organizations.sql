-- Updates the existing organizations of a batch; null keeps the present value.
update organizations
set
    name = coalesce(change.name, organizations.name),
    storage_bytes = coalesce(change.storage_bytes, organizations.storage_bytes),
    version = change.version
from unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
    as change (id, name, storage_bytes, created_at, version)
where organizations.id = change.id and change.created_at is null
