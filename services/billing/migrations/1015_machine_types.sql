-- On which type of machine jobs ran. Sums have ids as subjects, so a type has one, made of its name.

create table machine_types (
    id   uuid primary key,
    name text not null unique
);

create function machine_type_id(name text) returns uuid language sql immutable strict parallel safe
return md5('machine type ' || name)::uuid;

alter table runs add column machine_type_id uuid; -- null when it never started

-- The changes that a run makes to how many jobs run, by organization, user, configuration, machine and its type. A run that ended before
-- it started counts nothing.
create or replace function metering_run_changes(runs[])
returns table (organization_id uuid, scope smallint, subject uuid, at bigint, delta bigint)
language sql immutable as $$
    select r.organization_id, s.scope, coalesce(s.subject, '00000000-0000-0000-0000-000000000000'::uuid), c.at, c.delta
    from unnest($1) r
        cross join lateral (values (r.started_at, 1::bigint), (greatest(r.started_at, r.ended_at), -1)) as c (at, delta)
        cross join lateral (values
            (0::smallint, null::uuid), (1, r.user_id), (2, r.configuration_id), (3, r.machine_id), (4, r.machine_type_id)
        ) as s (scope, subject)
    where r.started_at is not null and (c.delta = 1 or r.ended_at is not null)
$$;

-- What ran before types were told ran on the default one.
do $$
declare
    organization uuid;
begin
    if exists (select 1 from runs where started_at is not null) then
        insert into machine_types values (machine_type_id('default'), 'default');
    end if;
    update runs set machine_type_id = machine_type_id('default') where started_at is not null;
    for organization in select distinct organization_id from runs loop
        perform metering_add(array_agg(c.organization_id), array_agg(2::smallint), array_agg(c.scope), array_agg(c.subject),
            array_agg(c.at), array_agg(c.delta))
        from (select array_agg(r) as all_runs from runs r where r.organization_id = organization) a
            cross join lateral metering_run_changes(a.all_runs) c
        where c.scope = 4;
    end loop;
end
$$;
