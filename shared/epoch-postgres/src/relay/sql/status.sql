select
    coalesce(r.position, 0) as published,
    coalesce(r.fence, 0) as fence,
    coalesce(h.position, 0) as head
from (select max(position) as position from events) h
left join relays r on r.name = $1
