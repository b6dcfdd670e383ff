-- Returns a page of the log: events after one position and up to another, of the given aggregates (none given: all).
-- At most `most` events, and at most `budget` bytes of payloads plus the last event.
--
-- A function because of its settings. Before the table is first analyzed, the planner estimates a range of positions as
-- one two-hundredth of the table, sorts that estimate and so reads the rest of the log for every page. A plan made while
-- the table was small would stay after it has grown. Along the primary key a page costs the same at any position.
create or replace function epoch_page(after bigint, up_to bigint, categories text[], most bigint, budget bigint) returns setof events
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
