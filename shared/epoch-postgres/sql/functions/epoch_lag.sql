-- Returns how far a subscription is behind this log: events not yet applied, and when the oldest was recorded.
--
-- At most `most` events are read; `exact` is false when there are more. Events of parked aggregates are not counted: they
-- are dead letters. The scan starts at the stored position up to which everything was applied at the previous call, so an
-- idle subscription costs the same for any length of the log.
create or replace function epoch_lag(subscriber text, listens text[], most bigint)
returns table (waiting bigint, oldest bigint, exact boolean, parked bigint)
language plpgsql volatile
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
declare
    found_key text;
    start bigint;
    head bigint;
    first bigint;
    last bigint;
    seen bigint;
begin
    select g.key, g.position into found_key, start from generations g
    where g.subscription = subscriber and g.state = 'serving';
    found_key := coalesce(found_key, subscriber);
    start := coalesce(start, 0);
    select max(e.position) into head from events e;
    loop
        select count(*) filter (where j.waits), min(j.recorded_at) filter (where j.waits),
            min(j.position) filter (where j.waits), max(j.position), count(*)
        into waiting, oldest, first, last, seen
        from (
            select s.position, s.recorded_at, coalesce(c.version, 0) < s.version and c.parked is null as waits
            from (
                select e.position, e.recorded_at, e.aggregate_id, e.aggregate, e.version from events e
                where e.position > start and e.position <= head and e.aggregate = any(listens)
                order by e.position limit most
            ) s left join lateral (
                select c.version, c.parked from cursors c
                where c.subscription = found_key and c.aggregate_id = s.aggregate_id and c.aggregate = s.aggregate limit 1
            ) c on true
        ) j;
        exact := seen < most;
        last := case when exact then head else last end;
        exit when exact or first is not null;
        start := last;
    end loop;
    update generations g set position = greatest(g.position, coalesce(first - 1, last, 0))
    where g.subscription = subscriber and g.state = 'serving' and g.position < coalesce(first - 1, last, 0);
    select count(*) into parked from cursors c where c.subscription = found_key and c.parked is not null;
    return next;
end $$;
