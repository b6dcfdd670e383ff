-- How far each subscription is with each aggregate. Locked while events are applied, in the order of the primary key.
create table cursors (
    subscription text   not null,
    aggregate_id uuid   not null,
    aggregate    text   not null,
    version      bigint not null,
    parked       text   check (parked in ('gap', 'failed')),
    primary key (subscription, aggregate_id, aggregate)
) with (fillfactor = 70); -- room for updates in place: every event moves a cursor

create index cursors_parked on cursors (subscription) where parked is not null;

-- The three ways to use cursors. Each goes through its keys one by one, in the order given, which must be the same for
-- everybody (ascending): so that two batches wait for each other but never in a circle, and so that each step is one look-up
-- by the primary key, whatever the planner believes about the table. A join with the keys was planned as a nested loop over
-- all cursors while the table had no statistics.

-- Locks cursors; those that aren't there are made, at version 0.
create function epoch_lock(subscriber text, ids uuid[], aggregates text[])
returns table (aggregate text, aggregate_id uuid, version bigint, parked text)
language plpgsql volatile
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    for n in 1 .. cardinality(ids) loop
        aggregate := aggregates[n];
        aggregate_id := ids[n];
        insert into cursors (subscription, aggregate_id, aggregate, version)
        values (subscriber, ids[n], aggregates[n], 0) on conflict do nothing;
        select c.version, c.parked into version, parked from cursors c
        where c.subscription = subscriber and c.aggregate_id = ids[n] and c.aggregate = aggregates[n]
        for update;
        return next;
    end loop;
end $$;

-- Moves the cursors of streams whose events follow directly on what was applied, and says how many did.
create function epoch_follow(subscriber text, ids uuid[], aggregates text[], firsts bigint[], lasts bigint[])
returns bigint
language plpgsql volatile
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    moved bigint;
    followed bigint := 0;
begin
    for n in 1 .. cardinality(ids) loop
        if firsts[n] = 1 then
            insert into cursors (subscription, aggregate_id, aggregate, version)
            values (subscriber, ids[n], aggregates[n], lasts[n]) on conflict do nothing;
        else
            update cursors set version = lasts[n]
            where subscription = subscriber and aggregate_id = ids[n] and aggregate = aggregates[n]
                and version = firsts[n] - 1 and parked is null;
        end if;
        get diagnostics moved = row_count;
        followed := followed + moved;
    end loop;
    return followed;
end $$;

-- Puts locked cursors where they belong.
create function epoch_move(subscriber text, ids uuid[], aggregates text[], versions bigint[], reasons text[])
returns void
language plpgsql volatile
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
    for n in 1 .. cardinality(ids) loop
        update cursors set version = versions[n], parked = reasons[n]
        where subscription = subscriber and aggregate_id = ids[n] and aggregate = aggregates[n];
    end loop;
end $$;

-- Events of parked aggregates, waiting in version order. Skipped ones stay, with the time they were skipped at.
create table dead_letters (
    subscription text   not null,
    aggregate_id uuid   not null,
    aggregate    text   not null,
    version      bigint not null,
    position     bigint not null,
    event_id     uuid   not null,
    event_name   text   not null,
    schema       bigint not null,
    payload      bytea  not null,
    metadata     json   not null,
    occurred_at  bigint not null,
    recorded_at  bigint not null,
    error        text,
    attempts     integer not null default 0,
    queued_at    bigint not null,
    skipped_at   bigint,
    primary key (subscription, aggregate_id, aggregate, version)
);

-- How far the relay has published. The fence grows with every new leader; an old one can't move the cursor any more.
create table relays (
    name     text   primary key,
    position bigint not null default 0,
    fence    bigint not null default 0
);
