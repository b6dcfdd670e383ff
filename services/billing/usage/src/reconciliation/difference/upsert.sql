-- Records a difference.
insert into reconciliation_differences
    (organization_id, area, place, kept, recomputed, found_at, seen_at, side)
values ($1, $2, $3, $4, $5, $6, $6, $7)
on conflict (organization_id, place)
do update set kept = excluded.kept, recomputed = excluded.recomputed, seen_at = excluded.seen_at
