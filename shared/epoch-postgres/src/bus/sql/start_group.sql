insert into epoch_bus.groups (name, number)
values ($1, 0)
on conflict (name) do update set number = epoch_bus.groups.number
returning number
