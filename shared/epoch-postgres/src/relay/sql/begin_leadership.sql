insert into relays (name, fence)
values ($1, 1)
on conflict (name) do update set fence = relays.fence + 1
returning position, fence
