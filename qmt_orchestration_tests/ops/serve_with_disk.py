"""The embedded ClickHouse with a disk for backups, as the configuration of a server names one.

python -m qmt_orchestration_tests.ops.serve_with_disk DISK_FOLDER --path DIR --port N
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import chdb

from qmt_orchestration.local import clickhouse_server


def main() -> int:
    folder = sys.argv.pop(1)
    disk = (
        f"<storage_configuration><disks><backups><type>local</type><path>{folder}/</path></backups></disks>"
        "</storage_configuration><backups><allowed_disk>backups</allowed_disk></backups>"
    )
    connect = chdb.connect

    def with_disk(target: str) -> Any:
        if "config-file=" in target:
            config = Path(target.rpartition("config-file=")[2])
            config.write_text(config.read_text().replace("<clickhouse>", f"<clickhouse>{disk}"))
        return connect(target)

    chdb.connect = with_disk
    return clickhouse_server.main()


if __name__ == "__main__":
    sys.exit(main())
