-- What the local way does first in each transaction, in one call: enters its generation and moves one stream's cursor past events that
-- are next. Where they aren't, it refuses (EP002) and nothing has changed.
create function epoch_follow_next(
    subscriber text, entered bigint, limit_ms bigint, stream uuid, kind text, first bigint, last bigint
)
returns void
language plpgsql volatile
set enable_seqscan = off
as $$
declare
    entered_key text := epoch_enter(subscriber, entered, limit_ms);
begin
    if first = 1 then
        insert into cursors (subscription, aggregate_id, aggregate, version)
        values (entered_key, stream, kind, last) on conflict do nothing;
    else
        update cursors set version = last
        where subscription = entered_key and aggregate_id = stream and aggregate = kind
            and version = first - 1 and parked is null;
    end if;
    if not found then
        raise exception 'events from version % of % % are not next', first, kind, stream using errcode = 'EP002';
    end if;
end $$;
