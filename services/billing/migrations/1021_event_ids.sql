-- Which event each change comes from, so that an amount can be explained down to it. Null for what was taken in before ids were
-- kept: billing doesn't store other services' events, so nothing could be filled in.

alter table storage_changes add column event_id uuid;
alter table job_moments add column event_id uuid;
alter table file_link_changes add column event_id uuid;

-- The same as with five arguments, which processes that don't know of event ids go on calling.
create function metering_storage_add(
    organization_ids uuid[], files uuid[], instants bigint[], deltas bigint[], recorded bigint[], event_ids uuid[]
) returns void language plpgsql as $$
begin
    insert into storage_changes (organization_id, file_id, at, delta_bytes, recorded_at, event_id)
    select * from unnest(organization_ids, files, instants, deltas, recorded, event_ids);
    perform metering_files_add(organization_ids, files, instants, deltas);
    perform metering_add(organization_ids, array_fill(1::smallint, array[cardinality(files)]),
        array_fill(0::smallint, array[cardinality(files)]),
        array_fill('00000000-0000-0000-0000-000000000000'::uuid, array[cardinality(files)]), instants, deltas);
end
$$;
