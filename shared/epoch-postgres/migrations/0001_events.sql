-- The event log. Append-only: it is the outbox as well, so nothing is ever deleted from it.
-- Instants are UTC milliseconds. `position` is commit order, because epoch_append takes a lock before it draws one.
create table events (
    position     bigint generated always as identity primary key,
    aggregate    text   not null,
    aggregate_id uuid   not null,
    version      bigint not null check (version > 0),
    event_id     uuid   not null,
    event_name   text   not null,
    schema       bigint not null, -- Rabin fingerprint of the writer's Avro schema, as a signed number
    payload      bytea  not null,
    metadata     json   not null,
    occurred_at  bigint not null,
    recorded_at  bigint not null,
    unique (aggregate_id, aggregate, version)
);

-- What repeatable commands came to. A row is committed with the command's events.
create table commands (
    command_id   uuid   primary key,
    fingerprint  bytea  not null,
    aggregate_id uuid   not null,
    version      bigint not null,
    recorded_at  bigint not null
);

-- Appends a batch of commands in one round trip, one after the other, each judged on what stands before it.
--
-- The lock is held until the transaction ends, so positions are drawn in commit order, and what is checked here can't
-- change before it is committed. Losers are told; winners are written; nothing is rolled back.
--
-- outcome: 0 committed, 1 conflict (version = where the aggregate is), 2 repeated, 3 command id reused.
-- Plans are made once, and without sequential scans: one made while the table was small would live on when it is not.
create function epoch_append(
    aggregates text[], aggregate_ids uuid[], expected_versions bigint[], event_counts bigint[],
    command_ids uuid[], fingerprints bytea[], metadatas text[], occurred bigint[],
    event_ids uuid[], event_names text[], schemas bigint[], payloads bytea[]
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
begin
    perform pg_advisory_xact_lock((1162891075::bigint << 32) | 'events'::regclass::oid::bigint);
    recorded_at := floor(extract(epoch from clock_timestamp()) * 1000);
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
            for i in first_event .. first_event + event_counts[n] - 1 loop
                version := version + 1;
                insert into events (
                    aggregate, aggregate_id, version, event_id, event_name, schema, payload, metadata, occurred_at, recorded_at
                ) values (
                    aggregates[n], aggregate_ids[n], version, event_ids[i], event_names[i], schemas[i], payloads[i],
                    metadatas[n]::json, occurred[n], recorded_at
                ) returning position into actual;
                first_position := coalesce(first_position, actual);
            end loop;
            if fingerprints[n] is not null then
                insert into commands values (command_ids[n], fingerprints[n], aggregate_ids[n], version, recorded_at);
            end if;
        end if;
        first_event := first_event + event_counts[n];
        return next;
    end loop;
end $$;
