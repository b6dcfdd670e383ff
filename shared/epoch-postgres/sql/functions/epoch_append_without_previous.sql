-- epoch_append without the parameter `previous`. Releases before migration 0008 call it; it stays until none of them runs.
-- See epoch_append.sql for the parameters.
create or replace function epoch_append(
    all_different boolean,
    aggregates text[], aggregate_ids uuid[], expected_versions bigint[], event_counts bigint[],
    command_ids uuid[], fingerprints bytea[], metadatas text[], occurred bigint[],
    event_appends bigint[], event_numbers bigint[], event_ids uuid[], event_names text[], schemas bigint[], payloads bytea[]
) returns table (outcome smallint, aggregate_id uuid, version bigint, first_position bigint, recorded_at bigint)
language sql volatile
as $$
    select * from epoch_append(
        all_different, aggregates, aggregate_ids, expected_versions, null::uuid[], event_counts, command_ids, fingerprints,
        metadatas, occurred, event_appends, event_numbers, event_ids, event_names, schemas, payloads
    )
$$;
