insert into epoch_functions (revision, fingerprint, applied_at)
values ($1, $2, $3)
on conflict (only_row) do update
set revision = excluded.revision, fingerprint = excluded.fingerprint, applied_at = excluded.applied_at
