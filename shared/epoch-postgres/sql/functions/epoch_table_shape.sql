-- Returns a text of columns, indexes, constraints and storage parameters of tables, looked up in the schemas of `path`.
-- Equal texts mean that a copy can replace its original.
create or replace function epoch_table_shape(path text, names text[]) returns text
language plpgsql volatile
as $$
declare
    before constant text := current_setting('search_path');
    shape text;
begin
    perform set_config('search_path', path, true);
    select string_agg(d.line, e'\n' order by d.line collate "C") into shape from (
        select format('%s column %s %I %s %s', n.name,
            row_number() over (partition by n.name order by a.attnum), a.attname, format_type(a.atttypid, a.atttypmod),
            a.attnotnull) as line
        from unnest(names) n (name) join pg_attribute a on a.attrelid = to_regclass(quote_ident(n.name))
        where a.attnum > 0 and not a.attisdropped
        union all
        select format('%s constraint %I %s', n.name, c.conname, pg_get_constraintdef(c.oid, true))
        from unnest(names) n (name) join pg_constraint c on c.conrelid = to_regclass(quote_ident(n.name))
        where c.contype in ('p', 'u', 'x', 'f', 'c')
        union all
        select format('%s with %s', n.name, c.reloptions)
        from unnest(names) n (name) join pg_class c on c.oid = to_regclass(quote_ident(n.name))
        where c.reloptions is not null
        union all
        select format('%s index %s', n.name, pg_get_indexdef(i.indexrelid, 0, true))
        from unnest(names) n (name) join pg_index i on i.indrelid = to_regclass(quote_ident(n.name))
    ) d;
    perform set_config('search_path', before, true);
    return coalesce(shape, '');
end $$;
