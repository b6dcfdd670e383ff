select instance, phase, state_version, body::text, origin::text
from sagas
where saga = $1 and instance = $2
for update skip locked
