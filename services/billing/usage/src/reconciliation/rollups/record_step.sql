-- Records a step of the comparison.
update reconciliation_state set organization = $1, checks = checks + 1, rows_compared = rows_compared + $2,
last_check_at = $3, round = round + case when $1 is null then 1 else 0 end,
round_began_at = case when $1 is null then $3 else coalesce(round_began_at, $3) end
