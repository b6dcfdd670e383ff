-- Appends a batch of commands in one round trip.
--
-- The advisory lock is held until the transaction ends. Positions are therefore drawn in commit order, and the versions
-- checked here can't change before the commit. A conflict is reported in its row; the other commands are still written.
--
-- previous: the event id that the expected version must have, or null. A command decided on pending events names the
-- last of them, and conflicts when another event was committed at that version.
--
-- A batch of several commands with distinct aggregates and distinct command ids (all_different) is checked and written
-- as a whole. Other batches are processed command by command, each on the result of the one before; for a single
-- command this is also faster.
--
-- Events come in the order of their commands: event_appends is the number of the command (from 1), event_numbers the
-- number of the event within it.
-- outcome: 0 committed, 1 conflict (version is the aggregate's current version), 2 repeated, 3 command id reused.
--
-- The settings keep one generic plan without sequential scans: a plan made while the table was small would otherwise
-- scan it after it has grown.
create or replace function epoch_append(
    all_different boolean,
    aggregates text[], aggregate_ids uuid[], expected_versions bigint[], previous uuid[], event_counts bigint[],
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
    last_event uuid;
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
                    when a.follows then 0
                    else 1
                end)::smallint as outcome,
                coalesce(c.version, case when a.follows then a.expected + a.events else a.actual end) as version,
                coalesce(c.aggregate_id, a.id) as result
            from (
                select t.*, coalesce(last.version, 0) as actual,
                    coalesce(last.version, 0) = t.expected and (t.previous is null or t.previous = last.event_id) as follows
                from unnest(aggregates, aggregate_ids, expected_versions, previous, event_counts, command_ids, fingerprints)
                    with ordinality as t (aggregate, id, expected, previous, events, command_id, fingerprint, n)
                left join lateral (
                    select e.version, e.event_id from events e where e.aggregate_id = t.id and e.aggregate = t.aggregate
                    order by e.version desc limit 1
                ) last on true
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
            select e.version, e.event_id into actual, last_event from events e
            where e.aggregate_id = aggregate_ids[n] and e.aggregate = aggregates[n]
            order by e.version desc limit 1;
            aggregate_id := aggregate_ids[n];
            version := coalesce(actual, 0);
            outcome := case
                when version = expected_versions[n] and (previous[n] is null or previous[n] = last_event) then 0 else 1
            end;
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
