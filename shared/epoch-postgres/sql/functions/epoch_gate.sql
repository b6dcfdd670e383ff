-- Returns the advisory lock key of a generation. Transactions that move its cursors hold the lock shared until they end;
-- a swap holds it exclusively.
create or replace function epoch_gate(subscriber text, entered bigint) returns bigint
language sql stable
as $$ select hashtextextended(subscriber || '@' || entered, 'generations'::regclass::oid::bigint) $$;
