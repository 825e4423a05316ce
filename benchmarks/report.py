"""What a measurement is, how it is printed (the machine, one row a figure with target and ratio) and kept."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).with_name("results.json")


@dataclass(frozen=True)
class Figure:
    """One measured number. *against*: the rate of the baseline it is divided by (a key of `baseline.run`)."""

    name: str
    value: float
    unit: str
    target: str = ""
    met: bool | None = None
    against: str = ""
    ratio: float | None = None


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
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {p: version(p) for p in ("redis", "clickhouse-connect", "chdb", "pyarrow", "dagster")},
    }


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def with_ratios(figures: Sequence[Figure], rates: Mapping[str, float]) -> list[Figure]:
    """*figures*, those with a baseline divided by its rate."""
    return [replace(f, ratio=f.value / rates[f.against]) if f.against in rates else f for f in figures]


def load() -> float:
    """Processes that wanted a processor during the last minute, on average (the machine's, not only ours)."""
    return round(os.getloadavg()[0], 2)


def show(title: str, figures: Sequence[Figure], note: str) -> None:
    """Print one benchmark's figures."""
    table = Table("figure", "value", "target", "met", "against the present design", title=title, title_justify="left")
    for figure in figures:
        met = {True: "yes", False: "NO", None: ""}[figure.met]
        ratio = f"{figure.ratio:,.1f} ×" if figure.ratio is not None else ""
        table.add_row(figure.name, f"{number(figure.value)} {figure.unit}", figure.target, met, ratio)
    console = Console()
    console = Console(width=max(console.width, 120))
    console.print(table)
    console.print(note, style="dim")


def number(value: float) -> str:
    """Three significant digits, thousands separated."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def keep(
    name: str, figures: Sequence[Figure], *, rates: Mapping[str, float], seconds: float, load_before: float
) -> None:
    """Put the benchmark's figures into results.json, with the baseline of the same run."""
    try:
        kept: dict[str, Any] = json.loads(RESULTS.read_text())
    except (OSError, ValueError):
        kept = {"benchmarks": {}}
    kept["machine"] = machine()
    kept["benchmarks"][name] = {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "load_before": load_before,
        "load_after": load(),
        "baseline": dict(rates),
        "figures": [asdict(figure) for figure in figures],
    }
    RESULTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def markdown() -> str:
    """The kept results as the table of docs/performance.md."""
    kept = json.loads(RESULTS.read_text())
    lines = ["| figure | value | target | met | against the present design |", "| --- | --- | --- | --- | --- |"]
    for name, result in kept["benchmarks"].items():
        about = f"load {result['load_before']:g} before, {result['load_after']:g} after"
        if any(values["ratio"] for values in result["figures"]):
            rates = result["baseline"]
            about += f"; present design {number(rates['publish'])} and {number(rates['store'])} rows/s"
        lines.append(f"| **{name}** ({about}) | | | | |")
        for figure in (Figure(**values) for values in result["figures"]):
            met = {True: "yes", False: "**no**", None: ""}[figure.met]
            ratio = f"{number(figure.ratio)} ×" if figure.ratio is not None else ""
            value = f"{number(figure.value)} {figure.unit}"
            lines.append(f"| {figure.name.strip()} | {value} | {figure.target} | {met} | {ratio} |")
    return "\n".join(lines)
