insert into subject_keys (subject, forgotten_at)
values ($1, $2)
on conflict (subject) do update
set wrapped = null, master = null, forgotten_at = $2
where subject_keys.wrapped is not null
