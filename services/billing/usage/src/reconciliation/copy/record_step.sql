-- Records the findings of a step, if its claim is still valid.
update reconciliation_copies set busy_until = 0, checks = checks + 1,
    rows_compared = rows_compared + $3, skipped = skipped + $4, last_check_at = $5,
    round_began_at = case when round = $6 then round_began_at else $5 end,
    round = $6, listed = $7, organization = $8, unreachable_since = null, unreachable_why = null
where aggregate = $1 and busy_until = $2
