"""Every Python block of the pages for users runs as pasted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys
from qmt_orchestration.stream.connection import connect as connect_redis
from qmt_orchestration_tests.client import filled
from qmt_orchestration_tests.client.market import FRAMES, bar, publish
from qmt_orchestration_tests.helpers import wait_until

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def world(engine_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with filled.warehouse(engine_settings, tmp_path_factory.mktemp("docs")) as (settings, _):
        yield settings


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.M | re.S)


@pytest.mark.parametrize("page", ["tutorial.md", "queries.md", "xtdata.md"])
def test_the_blocks_of_a_page_run_one_after_the_other(world: Settings, tmp_path: Path, page: str) -> None:
    if page == "tutorial.md":
        pytest.importorskip("mplfinance")
    found = blocks(page)
    assert found
    program = tmp_path / "pasted.py"
    program.write_text("\n".join(found), "utf-8")
    environment = {**os.environ, **world.environment(), "MPLBACKEND": "agg"}
    with connect_redis(world) as server, (tmp_path / "out").open("w+") as out:
        server.flushall()
        child = subprocess.Popen([sys.executable, str(program)], env=environment, cwd=tmp_path, stdout=out, stderr=out)
        try:
            wait_until(lambda: child.poll() is not None or _feed(server), 90, f"{page} has come to its end")
        finally:
            child.kill()
            child.wait()
        text = (tmp_path / "out").read_text()
    assert child.returncode == 0, text
    if page == "tutorial.md":
        assert (tmp_path / "600000.png").stat().st_size > 5_000
        assert "change_percent" in text
        assert str(FRAMES[60].date()) in text


_sent = iter(FRAMES)


def _feed(server: Any) -> bool:
    """A minute's bars for a consumer that waits for them; never True."""
    if server.exists(keys.MINUTES) and any(g["name"].endswith(b":tutorial") for g in server.xinfo_groups(keys.MINUTES)):
        frame = next(_sent)
        publish(server, [bar(symbol, frame) for symbol in filled.SYMBOLS])
    return False


def test_the_pages_are_listed_and_name_no_missing_file() -> None:
    readme = (DOCS.parent / "README.md").read_text("utf-8")
    for page in ("tutorial.md", "queries.md", "xtdata.md", "export.md"):
        assert f"docs/{page}" in readme, page
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", (DOCS / page).read_text("utf-8")):
            assert (DOCS / target).exists(), (page, target)
