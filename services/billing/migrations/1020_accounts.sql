-- Billing accounts, plans and invoices, as lists show them. Everything else about them is read from their events.

create table billing_accounts (
    organization_id uuid   primary key,
    currency        text   not null,
    has_budget      boolean not null default false,
    version         bigint not null
);

create table plans (
    id           uuid   primary key,
    name         text   not null,
    currency     text   not null,
    newest       int    not null, -- the number of its newest version
    retired      boolean not null default false,
    published_at bigint not null, -- the first version
    version      bigint not null
);

create table invoices (
    id              uuid   primary key,
    organization_id uuid   not null,
    month           text   not null, -- as 2026-03
    status          text   not null check (status in ('draft', 'finalized', 'void')),
    number          bigint unique,
    credit_note     bigint unique,
    currency        text,
    total           text,
    adjustments     int    not null default 0,
    version         bigint not null
);

create index invoices_by_month on invoices (organization_id, month desc, id desc);

-- The last number of each series of documents. The row is locked until the document that takes the next number is committed,
-- so numbers have no holes.
create table invoice_numbers (
    series text   primary key,
    last   bigint not null
);

insert into invoice_numbers (series, last) values ('invoice', 0);
