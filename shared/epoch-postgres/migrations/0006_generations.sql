-- Which tables and cursors of a subscription are the ones in use. A subscription that was never rebuilt has generation 1,
-- whose cursors have the subscription's own name.
create table generations (
    subscription text   not null,
    generation   bigint not null check (generation > 0),
    revision     bigint not null, -- of the handler that makes it
    state        text   not null check (state in ('serving', 'building', 'retired')),
    key          text   not null unique, -- what its cursors and dead letters are kept under
    schema       text,            -- where its tables are while it is built
    position     bigint not null default 0, -- up to here the log holds nothing more that it waits for
    began_at     bigint not null,
    ended_at     bigint,          -- when it was retired
    primary key (subscription, generation)
);

create unique index generations_serving on generations (subscription) where state = 'serving';
create unique index generations_building on generations (subscription) where state = 'building';

-- The lock that everybody who moves a generation's cursors holds shared until the end of the transaction, and that a swap
-- holds alone.
create function epoch_gate(subscriber text, entered bigint) returns bigint
language sql stable
as $$ select hashtextextended(subscriber || '@' || entered, 'generations'::regclass::oid::bigint) $$;

-- Lets a transaction move a generation's cursors and says what they are kept under; refuses (EP001) when the generation
-- has been retired. Waits while a swap decides about it, so what is seen here is true until the transaction ends. None of the
-- transaction's later statements takes longer than `limit_ms`: whoever gives up a handler that hangs in one needs its locks.
create function epoch_enter(subscriber text, entered bigint, limit_ms bigint) returns text
language plpgsql volatile
as $$
declare
    found_key text;
begin
    perform pg_advisory_xact_lock_shared(epoch_gate(subscriber, entered));
    select g.key into found_key from generations g
    where g.subscription = subscriber and g.generation = entered and g.state <> 'retired';
    if found_key is null then
        raise exception 'generation % of % is not in use any more', entered, subscriber using errcode = 'EP001';
    end if;
    perform set_config('statement_timeout', limit_ms::text, true);
    return found_key;
end $$;

-- What a subscription has not applied of this log: how many events (at most `most` are looked at; `exact` says whether that was
-- all), and when the oldest was recorded. Events of parked aggregates don't count: they are dead letters. Only looks at what
-- came after the place up to which it had everything the last time.
create function epoch_lag(subscriber text, listens text[], most bigint)
returns table (waiting bigint, oldest bigint, exact boolean, parked bigint)
language plpgsql volatile
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    found_key text;
    start bigint;
    head bigint;
    first bigint;
    last bigint;
    seen bigint;
begin
    select g.key, g.position into found_key, start from generations g
    where g.subscription = subscriber and g.state = 'serving';
    found_key := coalesce(found_key, subscriber);
    start := coalesce(start, 0);
    select max(e.position) into head from events e;
    loop
        select count(*) filter (where j.waits), min(j.recorded_at) filter (where j.waits),
            min(j.position) filter (where j.waits), max(j.position), count(*)
        into waiting, oldest, first, last, seen
        from (
            select s.position, s.recorded_at, coalesce(c.version, 0) < s.version and c.parked is null as waits
            from (
                select e.position, e.recorded_at, e.aggregate_id, e.aggregate, e.version from events e
                where e.position > start and e.position <= head and e.aggregate = any(listens)
                order by e.position limit most
            ) s left join lateral (
                select c.version, c.parked from cursors c
                where c.subscription = found_key and c.aggregate_id = s.aggregate_id and c.aggregate = s.aggregate limit 1
            ) c on true
        ) j;
        exact := seen < most;
        last := case when exact then head else last end;
        exit when exact or first is not null;
        start := last;
    end loop;
    update generations g set position = greatest(g.position, coalesce(first - 1, last, 0))
    where g.subscription = subscriber and g.state = 'serving' and g.position < coalesce(first - 1, last, 0);
    select count(*) into parked from cursors c where c.subscription = found_key and c.parked is not null;
    return next;
end $$;

-- The generation in use; a subscription that is new here begins with generation 1, of the revision that asks.
create function epoch_serving(subscriber text, asking bigint)
returns table (generation bigint, revision bigint, key text)
language plpgsql volatile
as $$
#variable_conflict use_column
begin
    return query select g.generation, g.revision, g.key from generations g
        where g.subscription = subscriber and g.state = 'serving';
    if not found then
        insert into generations (subscription, generation, revision, state, key, began_at)
        values (subscriber, 1, asking, 'serving', subscriber, floor(extract(epoch from clock_timestamp()) * 1000))
        on conflict do nothing;
        return query select g.generation, g.revision, g.key from generations g
            where g.subscription = subscriber and g.state = 'serving';
    end if;
end $$;
