"""The default engines: a Redis process and a ClickHouse process (chDB behind HTTP) of our own, on loopback.

`engines` finds, starts and stops them; `redis_server` and `clickhouse_server` are the processes; `clickhouse_protocol`
is ClickHouse's HTTP protocol without a socket. Tables and keys are no part of it.
"""
