select id, status from known_files where organization_id = $1 and id = any($2)
