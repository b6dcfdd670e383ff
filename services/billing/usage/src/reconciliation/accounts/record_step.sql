-- Records a step of the comparison.
update reconciliation_accounts set checks = checks + 1, rows_compared = rows_compared + $1,
last_check_at = $2, listed = $3, round = $4,
round_began_at = case when round = $4 then coalesce(round_began_at, $2) else $2 end
