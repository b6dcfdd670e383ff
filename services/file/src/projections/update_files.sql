-- Applies the changes of a batch; a null status or completion time keeps the present value.
update files
set
    bytes = files.bytes + change.bytes,
    status = coalesce(change.status, files.status),
    completed_at = coalesce(change.completed_at, files.completed_at),
    version = change.version
from unnest($1::uuid[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[])
    as change (id, bytes, status, completed_at, version)
where files.id = change.id
