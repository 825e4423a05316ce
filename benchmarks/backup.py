"""A day of ticks and its bars to a backup, the same again with nothing changed, and back into an empty folder."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.common import DAY, WHOLE_MARKET, fresh
from benchmarks.rebuild import fill_day
from benchmarks.report import Figure
from qmt_orchestration.backup.restore import restore
from qmt_orchestration.backup.save import backup
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse import bars
from qmt_orchestration.warehouse.client import connect


def run(quick: bool) -> list[Figure]:
    """Megabytes are of data as ClickHouse holds them in memory (`data_uncompressed_bytes`)."""
    with fresh() as ready, TemporaryDirectory(prefix="qmt-benchmark-") as folder:
        with connect(ready) as client:
            fill_day(client, DAY, 103 if quick else WHOLE_MARKET)
            bars.finalize(client, DAY)
        local, target = ready.model_copy(update={"clickhouse_url": ""}), Path(folder) / "backup"
        out = backup(local, target, _silent)
        again = backup(local, target, _silent)
        size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
        back = restore(Settings(data_dir=Path(folder) / "new", feed="simulator"), target, _silent)
    return [
        Figure("backup of a day of ticks and minute bars", out["mb_per_second"], "MB/s", "≥ 100 MB/s",
               out["mb_per_second"] >= 100),
        Figure("  it took", out["seconds"], "s"),
        Figure("  rows of it", float(out["rows"]), "rows"),
        Figure("  on disk", size / out["rows"], "bytes a row"),
        Figure("the same again, nothing changed", again["seconds"], "s"),
        Figure("restore into an empty folder, checksums and comparison included", back["mb_per_second"], "MB/s",
               "≥ 100 MB/s", back["mb_per_second"] >= 100),
    ]  # fmt: skip


def _silent(_: str) -> None:
    """Progress is not printed."""
