-- Drops tables of the current schema and moves the tables of the same names from schema `origin` to their place.
create or replace function epoch_swap_tables(origin text, names text[]) returns void
language plpgsql volatile
as $$
declare
    home constant text := current_schema();
    name text;
begin
    execute (
        select format('drop table %s', string_agg(format('%I.%I', home, n.name), ', ')) from unnest(names) n (name)
    );
    foreach name in array names loop
        execute format('alter table %I.%I set schema %I', origin, name, home);
    end loop;
    execute format('drop schema %I', origin);
end $$;
