-- Adds members and changes roles; rows without a role are removals.
insert into members (organization_id, user_id, role)
select organization_id, user_id, role
from unnest($1::uuid[], $2::uuid[], $3::text[]) as change (organization_id, user_id, role)
where role is not null
on conflict (organization_id, user_id) do update set role = excluded.role
