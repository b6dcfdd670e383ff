-- The set of functions that was applied last from sql/functions. A process applies its own set only when its revision is
-- newer, or when the revision is the same and the texts differ.
create table epoch_functions (
    only_row    boolean primary key default true check (only_row),
    revision    bigint  not null,
    fingerprint bigint  not null, -- 64-bit FNV-1a hash of the texts, as a signed number
    applied_at  bigint  not null  -- UTC milliseconds
);
