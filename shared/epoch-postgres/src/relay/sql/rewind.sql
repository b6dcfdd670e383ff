update relays
set position = least(position, $2), fence = fence + 1
where name = $1
returning position
