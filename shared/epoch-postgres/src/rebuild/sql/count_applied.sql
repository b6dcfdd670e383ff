select coalesce(sum(version), 0)::bigint as applied
from cursors
where subscription = $1 and aggregate = any($2)
