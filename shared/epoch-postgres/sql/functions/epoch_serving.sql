-- Returns the serving generation. A new subscription starts with generation 1 of the caller's revision.
create or replace function epoch_serving(subscriber text, asking bigint)
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
