"""``python -m …programs real|ours FILE``: runs the programs of examples/xtdata in turn; their output as JSON."""

from __future__ import annotations

import io
import json
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Final

from qmt_orchestration.settings import Settings

FOLDER: Final = Path(__file__).parents[2] / "examples" / "xtdata"
ARGUMENTS: Final[dict[str, list[str]]] = {
    "moving_average_scan": ["20250605"],
    "live_ranking": ["1"],
    "download_loop": ["20250604", "20250605", "000001.SZ", "600000.SH"],
    "sector_breadth": [],
    "limit_up_watcher": ["4", "1"],
}


def main(side: str, path: str) -> None:
    """*side*: the real Python layer over the simulator, or ours over the warehouse of the settings."""
    if side == "real":
        from qmt_orchestration.feed import xt

        xt.load(Settings())
    else:
        from qmt_orchestration.client import xtdata

        xtdata.install_alias()
    out = {}
    for name, arguments in ARGUMENTS.items():
        sys.argv = [name, *arguments]
        with redirect_stdout(io.StringIO()) as said:
            runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        out[name] = said.getvalue()
    Path(path).write_text(json.dumps(out, ensure_ascii=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
