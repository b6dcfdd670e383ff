-- Claims the next step unless another process holds it.
update reconciliation_copies set busy_until = greatest($2, busy_until + 1),
    round_began_at = coalesce(round_began_at, $3)
where aggregate = $1 and busy_until <= $3 returning busy_until, round, listed, organization
