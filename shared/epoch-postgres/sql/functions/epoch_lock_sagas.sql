-- Locks saga instances in the order of the keys, which must be ascending to avoid deadlocks.
-- Missing instances are inserted without a body. The inner loop inserts again when another transaction deletes the row
-- between the insert and the lock.
create or replace function epoch_lock_sagas(name text, keys text[])
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
