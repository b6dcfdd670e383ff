-- Moves the cursors of streams, if their events directly follow the applied version; returns how many moved.
-- The keys must be ascending, for the reasons in epoch_lock.sql.
create or replace function epoch_follow(subscriber text, ids uuid[], aggregates text[], firsts bigint[], lasts bigint[])
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
