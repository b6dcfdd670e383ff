insert into generations (subscription, generation, revision, state, key, schema, began_at)
values ($1, $2, $3, 'building', $4, $5, $6)
