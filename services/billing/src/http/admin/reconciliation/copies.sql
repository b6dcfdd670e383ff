select
    copy.*,
    (
        select count(*) from reconciliation_differences difference
        where difference.side = 'copy' and difference.area like 'copy of ' || copy.aggregate || ' %'
    ) as differences
from reconciliation_copies copy
