"""ClickHouse: connection, tables, statements; nothing of TWS."""
