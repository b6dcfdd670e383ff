select state.*, (select count(*) from reconciliation_differences where side = 'accounts') as differences
from reconciliation_accounts state
