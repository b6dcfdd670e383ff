delete from dead_letters
where ctid = any(array(
    select ctid from dead_letters where subscription = $1 and skipped_at is null limit $2
))
