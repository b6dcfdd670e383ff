select * from jobs where id = any($1)
