-- The machine types of starts, found by one index lookup each, next to the stored types.
with recursive of_starts as (
    (select machine_type as name, 1::bigint as number from job_moments where machine_type is not null
        order by machine_type limit 1)
    union all
    select (select m.machine_type from job_moments m where m.machine_type > of_starts.name order by m.machine_type limit 1),
        number + 1
    from of_starts where of_starts.name is not null and number < $1
)
select coalesce(k.id, machine_type_id(t.name)) as id, coalesce(k.name, $2) as stored, coalesce(t.name, $2) as recomputed
from (select name from of_starts where name is not null) t full join machine_types k on k.id = machine_type_id(t.name)
limit $1
