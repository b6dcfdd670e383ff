select generation, revision, schema, position
from generations
where subscription = $1 and state = 'building'
