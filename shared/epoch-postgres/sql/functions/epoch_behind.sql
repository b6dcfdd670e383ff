-- Returns one aggregate of which the serving generation (`used`) has applied or queued more than the new one (`built`);
-- no row when there is none. Both sides are read once, in the order of their key.
create or replace function epoch_behind(used text, built text, listens text[])
returns table (aggregate text, aggregate_id uuid, reached bigint, wanted bigint)
language sql volatile
set enable_nestloop = off
as $$
    (
        select s.aggregate, s.aggregate_id, coalesce(b.version, 0), s.version
        from (select * from cursors where subscription = used) s
        left join (select * from cursors where subscription = built) b using (aggregate_id, aggregate)
        where s.version > coalesce(b.version, 0) and s.aggregate = any(listens) limit 1
    ) union all (
        select d.aggregate, d.aggregate_id, coalesce(b.version, 0), d.version
        from (select * from dead_letters where subscription = used and skipped_at is null) d
        left join (select * from dead_letters where subscription = built) q using (aggregate_id, aggregate, version)
        left join (select * from cursors where subscription = built) b using (aggregate_id, aggregate)
        where d.version > coalesce(b.version, 0) and q.version is null and d.aggregate = any(listens) limit 1
    ) limit 1
$$;
