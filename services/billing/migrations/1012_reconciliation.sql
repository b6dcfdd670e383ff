-- Whether the sums are what recomputation gives. Instants are UTC milliseconds.

-- Where the rolling sample is: each step takes the next organization, and each round another part of its time and files.
create table reconciliation_state (
    one            boolean primary key default true check (one),
    round          bigint  not null default 0,
    organization   uuid, -- the last one looked at in this round
    checks         bigint  not null default 0,
    rows_compared  bigint  not null default 0,
    last_check_at  bigint,
    round_began_at bigint
);
insert into reconciliation_state default values;

-- Rows that are not what recomputation gives; a row goes when a later check finds it right.
create table reconciliation_differences (
    organization_id uuid   not null,
    place           text   not null, -- which row of which table, in words
    area            text   not null, -- what is looked at together with it; once it is, it is known whether it is right
    kept            text   not null,
    recomputed      text   not null,
    found_at        bigint not null,
    seen_at         bigint not null,
    primary key (organization_id, place)
);
