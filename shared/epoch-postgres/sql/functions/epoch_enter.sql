-- Admits a transaction to a generation and returns the key of its cursors; raises EP001 when the generation is retired.
--
-- Waits while a swap holds the gate exclusively, so the result is valid until the transaction ends. limit_ms bounds each
-- later statement of the transaction: a handler that hangs in a statement must release its locks.
create or replace function epoch_enter(subscriber text, entered bigint, limit_ms bigint) returns text
language plpgsql volatile
as $$
declare
    found_key text;
begin
    perform pg_advisory_xact_lock_shared(epoch_gate(subscriber, entered));
    select g.key into found_key from generations g
    where g.subscription = subscriber and g.generation = entered and g.state <> 'retired';
    if found_key is null then
        raise exception 'generation % of % is not in use any more', entered, subscriber using errcode = 'EP001';
    end if;
    perform set_config('statement_timeout', limit_ms::text, true);
    return found_key;
end $$;
