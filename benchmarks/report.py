"""What a measurement is, and how it is printed: the machine, then one row a figure with target and baseline."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured number; ``target`` is DESIGN's, ``ratio`` is against the baseline named in ``against``."""

    name: str
    value: float
    unit: str
    target: str = ""
    met: bool | None = None
    ratio: float | None = None
    against: str = ""


def machine() -> dict[str, object]:
    """The machine and the versions the figures were measured with."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in _cpuinfo() if line.lower().startswith("model name")),
        platform.processor() or platform.machine(),
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "packages": {p: version(p) for p in ("redis", "clickhouse-connect", "chdb", "pyarrow", "dagster")},
    }


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def show(figures: list[Figure]) -> None:
    """Print the table, and keep it as JSON in benchmarks/results.json."""
    console = Console()
    about = machine()
    console.print(f"{about['cpu']} · {about['cores']} cores · {about['memory_gb']} GB · Python {about['python']}")
    table = Table("figure", "value", "target", "met", "against the baseline")
    for figure in figures:
        met = {True: "yes", False: "NO", None: ""}[figure.met]
        ratio = f"{figure.ratio:,.1f}× {figure.against}" if figure.ratio is not None else ""
        table.add_row(figure.name, f"{figure.value:,.4g} {figure.unit}", figure.target, met, ratio)
    console.print(table)
    path = Path(__file__).with_name("results.json")
    path.write_text(
        json.dumps({"machine": about, "figures": [asdict(f) for f in figures]}, indent=1, ensure_ascii=False)
    )
    console.print(f"kept in {path}")
