"""ClickHouse: schema and queries, migration, the writer and the publisher, bars, and what reads and verifies them."""
