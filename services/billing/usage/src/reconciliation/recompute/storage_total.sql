-- The storage of the organization, and the sum over all of its files.
select coalesce((select sum(s0)::text || ' ' || sum(s1)::text from metering_sums
    where organization_id = $1 and meter = 1 and scope = 0 and width = 3), 'nothing') as stored,
coalesce((select sum(s0)::text || ' ' || sum(s1)::text from metering_files
    where organization_id = $1), 'nothing') as recomputed
