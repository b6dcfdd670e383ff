select fingerprint = $2 as is_same_command, aggregate_id, version
from commands
where command_id = $1
