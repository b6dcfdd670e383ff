select bool_or(not exists (select from events e where e.aggregate = a.name)) as listens_to_others
from unnest($1::text[]) a (name)
