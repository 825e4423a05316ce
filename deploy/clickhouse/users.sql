-- Roles, limits and users of the pipeline, least privilege. Run once as an administrator:
--   clickhouse-client --multiquery < users.sql
-- then give each user its password (asked for, so that it is in no history):
--   ALTER USER qmt_writer IDENTIFIED WITH sha256_password BY '…' HOST IP '10.0.0.0/8'
-- Database name: qmt (setting QMT_CLICKHOUSE_DATABASE). On a cluster, add ON CLUSTER to each statement.

-- What everybody reads is final: replaced rows are never seen. readonly = 2 allows settings of a query, no writes.
CREATE SETTINGS PROFILE IF NOT EXISTS qmt_read SETTINGS
    final = 1,
    readonly = 2,
    max_memory_usage = 8000000000,
    max_execution_time = 300;

CREATE SETTINGS PROFILE IF NOT EXISTS qmt_write SETTINGS
    final = 1,
    async_insert = 0,
    insert_deduplicate = 1,
    deduplicate_blocks_in_dependent_materialized_views = 1,
    input_format_null_as_default = 0;

CREATE ROLE IF NOT EXISTS qmt_reader SETTINGS PROFILE 'qmt_read';
GRANT SELECT ON qmt.* TO qmt_reader;

-- Writer and publisher: ticks in; bars and deduplication looked up. No schema, no deletes.
CREATE ROLE IF NOT EXISTS qmt_service SETTINGS PROFILE 'qmt_write';
GRANT SELECT ON qmt.* TO qmt_service;
GRANT INSERT ON qmt.ticks TO qmt_service;
GRANT INSERT ON qmt.ticks_rejected TO qmt_service;
GRANT SELECT ON system.parts TO qmt_service; -- the console's metrics: the newest bar, from the parts' bounds

-- Dagster: the tables' owner. It migrates the schema, finalizes, backfills, checks, and drops old partitions.
CREATE ROLE IF NOT EXISTS qmt_owner SETTINGS PROFILE 'qmt_write';
GRANT SELECT, INSERT, ALTER, CREATE TABLE, CREATE VIEW, CREATE DATABASE, DROP TABLE, DROP VIEW, TRUNCATE, OPTIMIZE ON qmt.* TO qmt_owner;
GRANT SELECT ON system.parts TO qmt_owner;
GRANT SELECT ON system.tables TO qmt_owner;
GRANT SELECT ON system.columns TO qmt_owner;
GRANT SELECT ON system.disks TO qmt_owner;

-- NOT IDENTIFIED AT ALL would let anybody in: until a password is set, nobody can log in from anywhere.
CREATE USER IF NOT EXISTS qmt_writer HOST NONE DEFAULT ROLE qmt_service;
CREATE USER IF NOT EXISTS qmt_dagster HOST NONE DEFAULT ROLE qmt_owner;
CREATE USER IF NOT EXISTS qmt_analyst HOST NONE DEFAULT ROLE qmt_reader;
GRANT qmt_service TO qmt_writer;
GRANT qmt_owner TO qmt_dagster;
GRANT qmt_reader TO qmt_analyst;
