-- Whether the read models of billing's own aggregates, and the names of machine types, are what their events make. Instants are UTC
-- milliseconds.

-- A third side: the read models of accounts, plans and invoices, compared with billing's own log.
alter table reconciliation_differences drop constraint reconciliation_differences_side_check;
alter table reconciliation_differences add constraint reconciliation_differences_side_check
    check (side in ('sums', 'copy', 'accounts'));

-- Where that comparison is: it walks the ids of the log and of the tables together.
create table reconciliation_accounts (
    one            boolean primary key default true check (one),
    round          bigint  not null default 0, -- how often all ids have been walked
    round_began_at bigint,
    listed         uuid,                       -- the last id looked at in this round
    checks         bigint  not null default 0,
    rows_compared  bigint  not null default 0,
    last_check_at  bigint
);
insert into reconciliation_accounts default values;

-- Which types jobs were told to run on, one look-up each.
create index job_moments_by_machine_type on job_moments (machine_type) where machine_type is not null;
