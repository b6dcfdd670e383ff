-- One organization with its members, in one statement: the members are those of the returned version.
-- An organization without members is one row with null in the columns of the member.
select
    organizations.id,
    organizations.name,
    organizations.storage_bytes,
    organizations.created_at,
    organizations.version,
    members.user_id,
    members.role,
    users.email,
    users.name as user_name
from organizations
left join (members join users on users.id = members.user_id) on members.organization_id = organizations.id
where organizations.id = $1
order by members.user_id
