"""examples/first_day.ipynb runs from its first cell to its last, in a kernel, and draws its chart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qmt_orchestration.settings import Settings
from qmt_orchestration_tests.client import filled

NOTEBOOK = Path(__file__).parents[1] / "examples" / "first_day.ipynb"


@pytest.fixture
def world(engine_settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    with filled.warehouse(engine_settings, tmp_path) as (settings, client):
        names = ["day", "asset", "check", "run_id", "passed", "severity", "expected", "found"]
        day = filled.DAYS[-1]
        client.insert("quality_results", [[day, "bars_1m", "rows_present", "r", 1, "ERROR", "all", "all"]], names)
        yield settings


@pytest.mark.slow
def test_the_notebook_runs(world: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mplfinance")
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    for name, value in world.environment().items():
        monkeypatch.setenv(name, value)
    book = nbformat.read(NOTEBOOK, 4)
    nbclient.NotebookClient(book, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs), "no chart"
    assert any("rows_present" in output.get("data", {}).get("text/html", "") for output in outputs), "no checks"
