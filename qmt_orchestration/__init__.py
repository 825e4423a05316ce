"""Market-data orchestration for QMT: xtquant → Redis Streams → ClickHouse, controlled and watched by Dagster."""

__version__ = "0.1.0"
