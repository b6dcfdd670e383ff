insert into subject_keys (subject, key_id, master, wrapped)
values ($1, $2, $3, $4)
on conflict (subject) do nothing
