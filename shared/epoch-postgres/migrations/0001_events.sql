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

-- Appends a batch of commands, at most one per aggregate and per command id, in one round trip.
--
-- The lock is held until the transaction ends, so positions are drawn in commit order, and what is checked here can't
-- change before it is committed. Losers are told; winners are written; nothing is rolled back.
--
-- outcome: 0 committed, 1 conflict (version = where the aggregate is), 2 repeated, 3 command id reused.
-- Sequential scans are off because plans made while the table was small would otherwise live on when it is not.
create function epoch_append(
    aggregates text[], aggregate_ids uuid[], expected_versions bigint[], event_counts bigint[],
    command_ids uuid[], fingerprints bytea[], metadatas text[], occurred bigint[],
    event_appends bigint[], event_numbers bigint[], event_ids uuid[], event_names text[], schemas bigint[], payloads bytea[]
) returns table (outcome smallint, aggregate_id uuid, version bigint, first_position bigint, recorded_at bigint)
language plpgsql volatile
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    now_ms bigint;
begin
    perform pg_advisory_xact_lock((1162891075::bigint << 32) | 'events'::regclass::oid::bigint);
    now_ms := floor(extract(epoch from clock_timestamp()) * 1000);
    return query
    with appends as materialized (
        select a.*, known.aggregate_id as known_id, known.version as known_version, known.fingerprint as known_fingerprint,
            coalesce((
                select e.version from events e
                where e.aggregate_id = a.id and e.aggregate = a.aggregate
                order by e.version desc limit 1
            ), 0) as actual
        from unnest(
            aggregates, aggregate_ids, expected_versions, event_counts, command_ids, fingerprints, metadatas, occurred
        ) with ordinality as a (aggregate, id, expected, events, command_id, fingerprint, metadata, occurred_at, n)
        left join commands known on known.command_id = a.command_id and a.fingerprint is not null
    ), winners as materialized (
        select * from appends where known_id is null and actual = expected
    ), inserted as (
        insert into events (
            aggregate, aggregate_id, version, event_id, event_name, schema, payload, metadata, occurred_at, recorded_at
        )
        select w.aggregate, w.id, w.expected + e.number, e.event_id, e.name, e.schema, e.payload, w.metadata::json,
            w.occurred_at, now_ms
        from unnest(event_appends, event_numbers, event_ids, event_names, schemas, payloads)
            as e (append, number, event_id, name, schema, payload)
        join winners w on w.n = e.append
        order by e.append, e.number
        returning events.aggregate_id, events.aggregate, events.version, events.position
    ), kept as (
        insert into commands (command_id, fingerprint, aggregate_id, version, recorded_at)
        select command_id, fingerprint, id, expected + events, now_ms from winners where fingerprint is not null
    )
    select
        (case
            when a.known_id is not null then case when a.known_fingerprint = a.fingerprint then 2 else 3 end
            when a.actual = a.expected then 0
            else 1
        end)::smallint,
        coalesce(a.known_id, a.id),
        coalesce(a.known_version, case when a.actual = a.expected then a.expected + a.events else a.actual end),
        i.position,
        now_ms
    from appends a
    left join inserted i on i.aggregate_id = a.id and i.aggregate = a.aggregate and i.version = a.expected + 1
        and a.known_id is null and a.actual = a.expected
    order by a.n;
end $$;
