-- A sample of files that rotates with the rounds.
with files as (select count(*) as count from metering_files where organization_id = $1)
select file_id from metering_files where organization_id = $1 order by file_id
offset ($2 * $3) % greatest((select count from files), 1) limit $3
