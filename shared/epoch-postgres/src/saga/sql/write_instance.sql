update sagas
set phase = $3, state_version = $4, body = $5::json, origin = $6::json, changed_at = $7
where saga = $1 and instance = $2
