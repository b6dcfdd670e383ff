select * from jobs where organization_id = $1 and id < $2 and status = $4 order by id desc limit $3
