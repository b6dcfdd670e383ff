select job_id
from leases
where expires_at <= floor(extract(epoch from clock_timestamp()) * 1000)
order by expires_at
limit 100
