-- Locks the cursors of streams and returns them; missing cursors are inserted at version 0.
--
-- The keys are locked one by one in the order given, which must be ascending: two batches then wait for each other
-- without a deadlock. Each step is one look-up by the primary key. A join with the keys was planned as a nested loop over
-- all cursors while the table had no statistics.
create or replace function epoch_lock(subscriber text, ids uuid[], aggregates text[])
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
