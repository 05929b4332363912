"""All that the page asks of ClickHouse: the embedded engine answers it nothing else."""

from typing import Final

from dashboard import earlier, queries
from newshead.database import results

# When the sessions of the results began.
BEGINS: Final = """
    SELECT id, toUnixTimestamp(toDateTime(begin)) AS began
    FROM News.sessions FINAL
    ORDER BY began"""

PAGE_STATEMENTS: Final = (
    *queries.STATEMENTS,
    *earlier.STATEMENTS,
    BEGINS,
    *results.STATEMENTS,
)
