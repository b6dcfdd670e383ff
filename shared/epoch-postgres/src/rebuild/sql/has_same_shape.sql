-- A table missing in the new schema would be looked up in the home schema and match itself, so the tables are counted.
select epoch_table_shape($1, $3) = epoch_table_shape($2, $3) and cardinality($3::text[]) = (
    select count(*)
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = $4 and c.relkind = 'r'
) as has_same_shape
