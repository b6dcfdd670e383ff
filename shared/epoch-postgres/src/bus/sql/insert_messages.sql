insert into epoch_bus.messages (aggregate, headers, body)
select m.aggregate, m.headers, m.body
from unnest($1::text[], $2::json[], $3::bytea[]) with ordinality as m (aggregate, headers, body, number)
order by m.number
