-- First statement of a fast-path transaction: enters the generation and moves one stream's cursor past its next events.
-- Raises EP002 when the events are not next; nothing has changed then.
create or replace function epoch_follow_next(
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
