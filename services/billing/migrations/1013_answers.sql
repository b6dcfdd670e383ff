-- An answer about usage is one statement. What it lists it reads from indexes that have all of it, so that a listed row isn't one
-- more page of a table in which the rows of all organizations lie mixed.

create index runs_of_period on runs (organization_id, started_at)
    include (ended_at, job_id, number, user_id, started_recorded_at, ended_recorded_at);
drop index runs_by_start;
drop index runs_going_on;
create index runs_going_on on runs (organization_id, started_at)
    include (ended_at, job_id, number, user_id, started_recorded_at, ended_recorded_at)
    where ended_at is null;
drop index runs_odd;
create index runs_odd on runs (organization_id, job_id)
    include (number, user_id, started_at, ended_at, started_recorded_at, ended_recorded_at)
    where started_at is null or ended_at < started_at;

-- A page of those that were freed since an instant is a page of each 32 days since then.
drop index metering_files_freed;
create index metering_files_freed on metering_files (organization_id, (metering_bucket(last_at, 2764800000)), file_id) where s0 = 0;

create index storage_changes_of_files on storage_changes (organization_id, file_id, at) include (delta_bytes, recorded_at);
drop index storage_changes_by_file;

create index file_link_changes_of_files on file_link_changes (organization_id, file_id, at)
    include (job_id, role, version, linked, recorded_at);
