-- Inserts the files whose upload started. The update of the same batch sets bytes and version.
insert into files (id, organization_id, name, content_type, bytes, status, produced_by_job, created_at, version)
select id, organization_id, name, content_type, 0, 'uploading', produced_by_job, created_at, 0
from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::bigint[])
    as started (id, organization_id, name, content_type, produced_by_job, created_at)
