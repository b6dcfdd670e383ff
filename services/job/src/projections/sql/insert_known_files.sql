insert into known_files (id, organization_id, name, bytes, status)
select id, organization_id, name, bytes, 'uploading'
from unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[]) as started (id, organization_id, name, bytes)
