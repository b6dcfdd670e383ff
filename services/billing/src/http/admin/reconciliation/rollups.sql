select state.*, (select count(*) from reconciliation_differences where side = 'sums') as differences
from reconciliation_state state
