-- Creates empty copies of tables of the current schema in the new schema `target`. The copies keep names, indexes,
-- constraints, triggers, grants and storage parameters.
-- Raises EP002 for a table that could not be swapped later without breaking an object outside the given tables.
create or replace function epoch_clone_tables(target text, names text[]) returns void
language plpgsql volatile
as $$
declare
    home constant text := current_schema();
    before constant text := current_setting('search_path');
    origins oid[];
    origin oid;
    name text;
    problem text;
    statement text;
    statements text[] := '{}';
begin
    foreach name in array names loop
        select c.oid into origin from pg_class c
        where c.relnamespace = home::regnamespace and c.relname = name and c.relkind = 'r' and not c.relispartition;
        if origin is null then
            raise exception '% is not a plain table of this schema', name using errcode = 'EP002';
        end if;
        origins := origins || origin;
    end loop;
    select coalesce(
        (
            select format('view %s reads %s', r.ev_class::regclass, d.refobjid::regclass) from pg_depend d
            join pg_rewrite r on r.oid = d.objid and d.classid = 'pg_rewrite'::regclass
            where d.refclassid = 'pg_class'::regclass and d.refobjid = any(origins) and r.ev_class <> d.refobjid limit 1
        ),
        (
            select format('%s refers to %s by a foreign key', c.conrelid::regclass, c.confrelid::regclass)
            from pg_constraint c
            where c.contype = 'f' and c.confrelid = any(origins) and c.conrelid <> all(origins) limit 1
        ),
        (
            select format('%s has a serial column; make it an identity', d.refobjid::regclass) from pg_depend d
            join pg_class s on s.oid = d.objid and s.relkind = 'S'
            where d.classid = 'pg_class'::regclass and d.refobjid = any(origins) and d.deptype = 'a' limit 1
        ),
        (
            select format('%s and %s inherit from one another', i.inhrelid::regclass, i.inhparent::regclass)
            from pg_inherits i where i.inhrelid = any(origins) or i.inhparent = any(origins) limit 1
        ),
        (
            select format('%s takes rows of %s', pg_describe_object(d.classid, d.objid, d.objsubid), c.oid::regclass)
            from pg_class c join pg_type t on t.oid = c.reltype
                join pg_depend d on d.refclassid = 'pg_type'::regclass and d.refobjid in (t.oid, t.typarray)
            where c.oid = any(origins) and d.deptype = 'n' limit 1
        ),
        (
            select format('%s reads %s', pg_describe_object(d.classid, d.objid, d.objsubid), d.refobjid::regclass)
            from pg_depend d
            where d.refclassid = 'pg_class'::regclass and d.refobjid = any(origins) and d.classid = 'pg_proc'::regclass limit 1
        )
    ) into problem;
    if problem is not null then
        raise exception '%', problem using errcode = 'EP002';
    end if;

    -- Definitions name visible objects without a schema, so that they resolve in `target` first below.
    perform set_config('search_path', quote_ident(home), true);
    select array_agg(d.statement order by d.step, d.statement) into statements from (
        select case c.contype when 'f' then 3 else 1 end as step,
            format('alter table %s add constraint %I %s', c.conrelid::regclass, c.conname, pg_get_constraintdef(c.oid, true))
                as statement
        from pg_constraint c where c.conrelid = any(origins) and c.contype in ('p', 'u', 'x', 'f')
        union all
        select 2, pg_get_indexdef(i.indexrelid, 0, true) from pg_index i
        where i.indrelid = any(origins)
            and not exists (select from pg_constraint c where c.conindid = i.indexrelid and c.contype in ('p', 'u', 'x'))
        union all
        select 4, pg_get_triggerdef(t.oid, true) from pg_trigger t where t.tgrelid = any(origins) and not t.tgisinternal
        union all
        select 0, format('alter table %s set (%s)', c.oid::regclass, array_to_string(c.reloptions, ', '))
        from pg_class c where c.oid = any(origins) and c.reloptions is not null
        union all
        select 5, format('grant %s on %s to %s', a.privilege_type, c.oid::regclass,
            case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end)
        from pg_class c cross join aclexplode(c.relacl) a where c.oid = any(origins) and a.grantee <> c.relowner
    ) d;
    execute format('create schema %I', target);
    foreach name in array names loop
        execute format('create table %I.%I (like %I.%I including all excluding indexes)', target, name, home, name);
    end loop;
    perform set_config('search_path', quote_ident(target) || ',' || quote_ident(home), true);
    foreach statement in array coalesce(statements, '{}') loop
        execute statement;
    end loop;
    perform set_config('search_path', before, true);
end $$;
