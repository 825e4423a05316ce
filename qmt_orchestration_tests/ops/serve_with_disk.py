"""The embedded ClickHouse with a disk for backups, as the configuration of a server names one.

python -m qmt_orchestration_tests.ops.serve_with_disk DISK_FOLDER --path DIR --port N --password-file FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

from qmt_orchestration.local import clickhouse_config, clickhouse_server


def main() -> int:
    folder = sys.argv.pop(1)
    disk = (
        f"<storage_configuration><disks><backups><type>local</type><path>{folder}/</path></backups></disks>"
        "</storage_configuration><backups><allowed_disk>backups</allowed_disk></backups>"
    )
    write = clickhouse_config.write

    def with_disk(path: Path, memory_bytes: int) -> Path:
        config = write(path, memory_bytes)
        config.write_text(config.read_text().replace("<clickhouse>", f"<clickhouse>{disk}", 1))
        return config

    clickhouse_config.write = with_disk
    clickhouse_config.GRANTS = (*clickhouse_config.GRANTS, "GRANT BACKUP ON *.*", "GRANT READ, WRITE ON DISK")  # type: ignore[misc]
    return clickhouse_server.main()


if __name__ == "__main__":
    sys.exit(main())
