-- States of aggregates as blobs, written with the events they stand for (PgBlobStates).
create table states (
    aggregate_id uuid   not null,
    aggregate    text   not null,
    version      bigint not null check (version > 0),
    schema       bigint not null, -- the shape of the state: STATE_SCHEMA of the program that wrote it
    state        bytea  not null,
    primary key (aggregate_id, aggregate)
) with (fillfactor = 70); -- room for updates in place: every command writes its aggregate's row

-- The newest snapshot of each aggregate: a cache, which may be emptied at any time.
create table snapshots (
    aggregate_id uuid   not null,
    aggregate    text   not null,
    version      bigint not null check (version > 0),
    schema       bigint not null,
    state        bytea  not null,
    primary key (aggregate_id, aggregate)
);

-- A page of the log: events after one position and up to another, of some categories or (none named) of all, at most so many
-- and, but for the last one, of at most so many bytes.
--
-- A function, because of its settings. Before the table is first analysed, the planner believes that a range of positions is a
-- two-hundredth of it, sorts "those few" and so reads the rest of the log for every page; and a plan made while the table was
-- small would live on when it is not. Along the primary key a page costs the same wherever it is.
create function epoch_page(after bigint, up_to bigint, categories text[], most bigint, budget bigint) returns setof events
language plpgsql stable
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set plan_cache_mode = force_generic_plan
as $$
declare
    event events;
    bytes bigint := 0;
begin
    for event in
        select * from events e
        where e.position > after and e.position <= up_to
            and (cardinality(categories) = 0 or e.aggregate = any (categories))
        order by e.position limit most
    loop
        return next event;
        bytes := bytes + octet_length(event.payload);
        exit when bytes >= budget;
    end loop;
end $$;
