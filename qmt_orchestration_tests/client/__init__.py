"""Tests of the client library: real Redis, real ClickHouse, real processes."""
