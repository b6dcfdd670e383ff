update generations
set state = 'retired', ended_at = $3
where subscription = $1 and generation = $2
