-- What is parked is counted every few seconds, beside however much isn't.
create index saga_timers_parked on saga_timers (saga) where parked_at is not null;
create index saga_effects_parked on saga_effects (saga) where parked_at is not null;
