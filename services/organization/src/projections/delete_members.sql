-- Removes the members without a role.
delete from members
using unnest($1::uuid[], $2::uuid[], $3::text[]) as change (organization_id, user_id, role)
where members.organization_id = change.organization_id
    and members.user_id = change.user_id
    and change.role is null
