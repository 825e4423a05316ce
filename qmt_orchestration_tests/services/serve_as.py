"""The embedded ClickHouse whose one user may do what a role of ``deploy/clickhouse/users.sql`` may, and nothing else.

    python -m qmt_orchestration_tests.services.serve_as ROLE --path DIR --port N

A library keeps no users of its own, but it takes the default user's grants from a file, and the engine enforces them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import chdb

from qmt_orchestration.local import clickhouse_server

USERS_SQL = Path(__file__).resolve().parents[2] / "deploy/clickhouse/users.sql"


def grants(role: str) -> list[str]:
    """The privileges of *role*, without their receiver, as the file grants them."""
    text = re.sub(r"--.*", "", USERS_SQL.read_text())
    return re.findall(rf"^(GRANT [^;]*? ON [^;]*?) TO {role};", text, re.MULTILINE | re.DOTALL)


def main() -> int:
    role, path = sys.argv.pop(1), Path(sys.argv[sys.argv.index("--path") + 1])
    found = grants(role)
    assert found, f"no grants of {role} in {USERS_SQL}"
    users = path.parent / "users.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    users.write_text(
        "<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users><default><password></password>"
        "<networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota><grants>"
        + "".join(f"<query>{escape(grant)}</query>" for grant in found)
        + "</grants></default></users></clickhouse>"
    )
    connect = chdb.connect

    def with_users(target: str) -> Any:
        if "config-file=" in target:
            config = Path(target.rpartition("config-file=")[2])
            told = config.read_text().replace("<clickhouse>", f"<clickhouse><users_config>{users}</users_config>")
            config.write_text(told)
        return connect(target)

    chdb.connect = with_users
    return clickhouse_server.main()


if __name__ == "__main__":
    sys.exit(main())
