delete from cursors
where ctid = any(array(select ctid from cursors where subscription = $1 limit $2))
