-- epoch_append without the parameter `previous`. Releases before migration 0008 call it; it stays until none of them runs.
-- See epoch_append.sql for the parameters and the reasons.
create or replace function epoch_append(
    all_different boolean,
    aggregates text[], aggregate_ids uuid[], expected_versions bigint[], event_counts bigint[],
    command_ids uuid[], fingerprints bytea[], metadatas text[], occurred bigint[],
    event_appends bigint[], event_numbers bigint[], event_ids uuid[], event_names text[], schemas bigint[], payloads bytea[]
) returns table (outcome smallint, aggregate_id uuid, version bigint, first_position bigint, recorded_at bigint)
language plpgsql volatile
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    known commands;
    actual bigint;
    first_event bigint := 1;
    outcomes smallint[];
    versions bigint[];
    results uuid[];
begin
    perform pg_advisory_xact_lock((1162891075::bigint << 32) | 'events'::regclass::oid::bigint);
    recorded_at := floor(extract(epoch from clock_timestamp()) * 1000);

    if all_different and cardinality(aggregate_ids) > 1 then
        select array_agg(judged.outcome order by judged.n), array_agg(judged.version order by judged.n),
            array_agg(judged.result order by judged.n)
        into outcomes, versions, results
        from (
            select a.n,
                (case
                    when c.fingerprint = a.fingerprint then 2
                    when c.fingerprint is not null then 3
                    when a.actual = a.expected then 0
                    else 1
                end)::smallint as outcome,
                coalesce(c.version, case when a.actual = a.expected then a.expected + a.events else a.actual end) as version,
                coalesce(c.aggregate_id, a.id) as result
            from (
                select t.*, coalesce((
                    select e.version from events e where e.aggregate_id = t.id and e.aggregate = t.aggregate
                    order by e.version desc limit 1
                ), 0) as actual
                from unnest(aggregates, aggregate_ids, expected_versions, event_counts, command_ids, fingerprints)
                    with ordinality as t (aggregate, id, expected, events, command_id, fingerprint, n)
            ) a left join commands c on c.command_id = a.command_id and a.fingerprint is not null
        ) judged;

        -- The lock is held, so the positions of this statement are consecutive.
        with inserted as (
            insert into events (
                aggregate, aggregate_id, version, event_id, event_name, schema, payload, metadata, occurred_at, recorded_at
            )
            select a.aggregate, a.id, a.expected + e.number, e.id, e.name, e.schema, e.payload, a.metadata::json,
                a.occurred_at, recorded_at
            from unnest(event_appends, event_numbers, event_ids, event_names, schemas, payloads)
                with ordinality as e (append, number, id, name, schema, payload, n)
            join unnest(aggregates, aggregate_ids, expected_versions, metadatas, occurred, outcomes)
                with ordinality as a (aggregate, id, expected, metadata, occurred_at, outcome, n)
                on a.n = e.append and a.outcome = 0
            order by e.n
            returning events.position
        )
        select min(inserted.position) into actual from inserted;

        if cardinality(array_remove(fingerprints, null)) > 0 then
            insert into commands
            select t.command_id, t.fingerprint, t.id, t.version, recorded_at
            from unnest(command_ids, fingerprints, aggregate_ids, versions, outcomes)
                as t (command_id, fingerprint, id, version, outcome)
            where t.outcome = 0 and t.fingerprint is not null;
        end if;

        for n in 1 .. cardinality(aggregate_ids) loop
            outcome := outcomes[n];
            aggregate_id := results[n];
            version := versions[n];
            first_position := null;
            if outcome = 0 and event_counts[n] > 0 then
                first_position := actual;
                actual := actual + event_counts[n];
            end if;
            return next;
        end loop;
        return;
    end if;

    for n in 1 .. cardinality(aggregate_ids) loop
        outcome := null;
        first_position := null;
        if fingerprints[n] is not null then
            select * into known from commands c where c.command_id = command_ids[n];
            if found then
                outcome := case when known.fingerprint = fingerprints[n] then 2 else 3 end;
                aggregate_id := known.aggregate_id;
                version := known.version;
            end if;
        end if;
        if outcome is null then
            select e.version into actual from events e
            where e.aggregate_id = aggregate_ids[n] and e.aggregate = aggregates[n]
            order by e.version desc limit 1;
            aggregate_id := aggregate_ids[n];
            version := coalesce(actual, 0);
            outcome := case when version = expected_versions[n] then 0 else 1 end;
        end if;
        if outcome = 0 then
            if event_counts[n] = 1 then
                insert into events (
                    aggregate, aggregate_id, version, event_id, event_name, schema, payload, metadata, occurred_at, recorded_at
                ) values (
                    aggregates[n], aggregate_ids[n], version + 1, event_ids[first_event], event_names[first_event],
                    schemas[first_event], payloads[first_event], metadatas[n]::json, occurred[n], recorded_at
                ) returning position into first_position;
            elsif event_counts[n] > 1 then
                with inserted as (
                    insert into events (
                        aggregate, aggregate_id, version, event_id, event_name, schema, payload, metadata, occurred_at,
                        recorded_at
                    )
                    select aggregates[n], aggregate_ids[n], version + e.number, e.id, e.name, e.schema, e.payload,
                        metadatas[n]::json, occurred[n], recorded_at
                    from unnest(event_appends, event_numbers, event_ids, event_names, schemas, payloads)
                        as e (append, number, id, name, schema, payload)
                    where e.append = n
                    order by e.number
                    returning events.position
                )
                select min(inserted.position) into first_position from inserted;
            end if;
            version := version + event_counts[n];
            if fingerprints[n] is not null then
                insert into commands values (command_ids[n], fingerprints[n], aggregate_ids[n], version, recorded_at);
            end if;
        end if;
        first_event := first_event + event_counts[n];
        return next;
    end loop;
end $$;
