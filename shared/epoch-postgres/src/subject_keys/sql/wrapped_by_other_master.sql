select subject, key_id, master, wrapped, forgotten_at
from subject_keys
where wrapped is not null and (master < $1 or master > $1)
limit $2
