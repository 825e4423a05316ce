"""``python -m qmt_orchestration.client.xtdata PROGRAM [ARGUMENT …]``: runs a program of xtquant's xtdata on ours."""

from __future__ import annotations

import runpy
import sys

from qmt_orchestration.client import xtdata
from qmt_orchestration.client.errors import QueryError, StreamAway, WarehouseAway


def main() -> None:
    """Install the alias and run the program; what cannot be answered ends it with one line."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m qmt_orchestration.client.xtdata PROGRAM [ARGUMENT …]")
    xtdata.install_alias()
    sys.argv = sys.argv[1:]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except (QueryError, StreamAway, WarehouseAway) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        xtdata.disconnect()


if __name__ == "__main__":
    main()
