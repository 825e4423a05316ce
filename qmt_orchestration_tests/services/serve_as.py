"""The embedded ClickHouse whose one user may do what a role of ``deploy/clickhouse/users.sql`` may, and nothing else.

    python -m qmt_orchestration_tests.services.serve_as ROLE --path DIR --port N --password-file FILE

A library keeps no users of its own, but it takes the default user's grants from a file, and the engine enforces them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from qmt_orchestration.local import clickhouse_config, clickhouse_server

USERS_SQL = Path(__file__).resolve().parents[2] / "deploy/clickhouse/users.sql"


def grants(role: str) -> list[str]:
    """The privileges of *role*, without their receiver, as the file grants them."""
    text = re.sub(r"--.*", "", USERS_SQL.read_text())
    return re.findall(rf"^(GRANT [^;]*? ON [^;]*?) TO {role};", text, re.MULTILINE | re.DOTALL)


def main() -> int:
    role = sys.argv.pop(1)
    found = grants(role)
    assert found, f"no grants of {role} in {USERS_SQL}"
    # unlike ours, a server's default configuration asks for no grant of a table's engine
    clickhouse_config.GRANTS = (*found, "GRANT TABLE ENGINE ON *")  # type: ignore[misc]
    return clickhouse_server.main()


if __name__ == "__main__":
    sys.exit(main())
