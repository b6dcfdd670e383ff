update known_files k
set status = changed.status, bytes = coalesce(changed.bytes, k.bytes)
from unnest($1::uuid[], $2::text[], $3::bigint[]) as changed (id, status, bytes)
where k.id = changed.id
