-- Deletes the differences of checked areas that no longer hold.
delete from reconciliation_differences d using unnest($2::text[], $3::uuid[]) as l (area, organization_id)
where d.side = $1 and d.area = l.area and (d.side <> 'sums' or d.organization_id = l.organization_id)
    and not d.place = any($4)
