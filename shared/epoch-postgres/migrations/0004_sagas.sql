-- Instances of sagas. Locked while an input is taken; a completed one stays, so that late inputs don't begin it again.
create table sagas (
    saga          text    not null,
    instance      text    not null,
    phase         text    not null default 'running' check (phase in ('running', 'compensating', 'completed')),
    state_version integer not null default 0,
    body          json,   -- state and what to undo; null only inside the transaction that makes the row
    origin        json,   -- metadata of the event it began with
    changed_at    bigint  not null default 0,
    primary key (saga, instance)
) with (fillfactor = 70);

-- What instances want to be reminded of. due_at is what the saga asked for, try_at when to try (again).
create table saga_timers (
    id        uuid    primary key,
    saga      text    not null,
    instance  text    not null,
    timer     text    not null, -- JSON
    due_at    bigint  not null,
    try_at    bigint  not null,
    attempts  integer not null default 0,
    error     text,
    parked_at bigint,
    unique (saga, instance, timer)
);

create index saga_timers_due on saga_timers (saga, try_at) where parked_at is null;

-- What instances want others to do, in the order it was asked for. A row is deleted with the input that its answer is.
create table saga_effects (
    number   bigint  generated always as identity primary key,
    id       uuid    not null unique, -- the idempotency key
    saga     text    not null,
    instance text    not null,
    effect   text    not null, -- JSON
    try_at   bigint  not null, -- while it is being delivered: when to take it for lost
    attempts integer not null default 0,
    error    text,
    parked_at bigint
);

create index saga_effects_due on saga_effects (saga, try_at) where parked_at is null;
create index saga_effects_of_instance on saga_effects (saga, instance, number);

-- Locks instances in the order given, which must be ascending, so that nobody waits in a circle. Those that aren't there are
-- made without a body; a row that another transaction takes back meanwhile is made again.
create function epoch_lock_sagas(name text, keys text[])
returns table (instance text, phase text, state_version integer, body text, origin text)
language plpgsql volatile
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    for n in 1 .. cardinality(keys) loop
        loop
            insert into sagas (saga, instance) values (name, keys[n]) on conflict do nothing;
            select s.instance, s.phase, s.state_version, s.body::text, s.origin::text
            into instance, phase, state_version, body, origin
            from sagas s where s.saga = name and s.instance = keys[n] for update;
            exit when found;
        end loop;
        return next;
    end loop;
end $$;
