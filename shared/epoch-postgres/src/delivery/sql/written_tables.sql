select c.oid::bigint as oid, w.rows, format('%I.%I', s.nspname, c.relname) as name
from pg_class c
join pg_namespace s on s.oid = c.relnamespace,
lateral (
    select pg_stat_get_xact_tuples_inserted(c.oid) + pg_stat_get_xact_tuples_updated(c.oid)
        + pg_stat_get_xact_tuples_deleted(c.oid) as rows
) w
where c.relkind = 'r' and s.nspname !~ '^pg_' and s.nspname <> 'information_schema' and w.rows > 0
    and c.oid not in (
        select to_regclass(quote_ident(n.name))::oid
        from unnest($1::text[]) n (name)
        where to_regclass(quote_ident(n.name)) is not null
    )
