-- Writes the versions and parking reasons of locked cursors.
-- The keys must be ascending, for the reasons in epoch_lock.sql.
create or replace function epoch_move(subscriber text, ids uuid[], aggregates text[], versions bigint[], reasons text[])
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
