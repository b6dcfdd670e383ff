-- Inserts moments of jobs, and the machine types that are new.
with moments as (
    select * from unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::smallint[], $5::bigint[], $6::bigint[],
        $7::uuid[], $8::uuid[], $9::text[], $10::uuid[])
    as t (job_id, version, organization_id, kind, at, recorded_at, user_id, machine_id, machine_type, event_id)
), types as (
    insert into machine_types (id, name)
    select distinct machine_type_id(machine_type), machine_type from moments
    where machine_type is not null
        and not exists (select 1 from machine_types where id = machine_type_id(machine_type))
    order by 1 on conflict do nothing
)
insert into job_moments
    (job_id, version, organization_id, kind, at, recorded_at, user_id, machine_id, machine_type, event_id)
select * from moments on conflict do nothing
