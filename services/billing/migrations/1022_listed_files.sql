-- Files that an answer lists, and those it looks for, are read from an index alone: in the table, the rows of all organizations lie mixed, and each
-- listed file was a page of its own.

drop index metering_files_stored;
create index metering_files_stored on metering_files (organization_id, file_id) include (s0, s1, first_at, last_at)
    where s0 <> 0;

drop index metering_files_freed;
create index metering_files_freed on metering_files (organization_id, (metering_bucket(last_at, 2764800000)), file_id)
    include (s0, s1, first_at, last_at) where s0 = 0;
