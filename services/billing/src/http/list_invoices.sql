select id, month, status, number, credit_note, currency, total, adjustments
from invoices
where organization_id = $1 and (month, id) < ($2, $3)
order by month desc, id desc
limit $4
