"""Sources and processors of other packages: the examples, installed, and plug-ins that misbehave."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qmt_orchestration import plugins
from qmt_orchestration.definitions import build_defs
from qmt_orchestration.market.schema import BAR_SCHEMA, TICK_SCHEMA
from qmt_orchestration.market.sessions import at
from qmt_orchestration.orchestration.assets.plugins import installed
from qmt_orchestration.orchestration.backfill import instance_of, materialize_days
from qmt_orchestration.orchestration.sensors.minutes import request
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.bars import Pending
from qmt_orchestration_tests.orchestration import market
from qmt_orchestration_tests.orchestration.market import DAY, SYMBOLS

EXAMPLES = Path(__file__).parents[2] / "examples"
KEY = {"symbol": "000001.SZ", "frame": at(DAY, 600)}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both examples installed as packages."""
    target = tmp_path_factory.mktemp("installed")
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    packages = [str(EXAMPLES / name) for name in ("source_of_files", "processor_vwap")]
    subprocess.run([*argv, "--target", str(target), *packages], check=True, capture_output=True, timeout=120)
    return target


@pytest.fixture
def with_examples(examples: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The examples on the path; the folder of the source's files."""
    monkeypatch.syspath_prepend(str(examples))
    monkeypatch.setenv("SOURCE_OF_FILES", str(tmp_path / "files"))
    return tmp_path / "files"


def entry(monkeypatch: pytest.MonkeyPatch, group: str, plugin: Any) -> None:
    """*plugin* as the only plug-in that is installed."""

    class Entry:
        name, value = "it", "its:Plugin"

        def load(self) -> Any:
            if isinstance(plugin, Exception):
                raise plugin
            return plugin

    monkeypatch.setattr(
        plugins, "entry_points", lambda group_=group, **asked: [Entry()] if asked["group"] == group_ else []
    )


class Vendor:
    """A source that gives what it is told to."""

    name, periods = "vendor", ("1m",)

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def history(self, period: str, day: date, symbols: Sequence[str]) -> Any:
        return self.answer() if callable(self.answer) else self.answer


class Doubled:
    """A processor: twice the close, or what it is told to."""

    name, period, schema = "doubled", "1m", pa.schema([("twice", pa.float64())])

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer

    def process(self, bars: pa.Table) -> Any:
        if self.answer is not None:
            return self.answer(bars)
        import pyarrow.compute as pc

        return bars.select(["symbol", "frame"]).append_column("twice", pc.multiply(bars["close"], 2.0))


def bar(**changes: Any) -> dict[str, Any]:
    return {**KEY, "open": 10.0, "high": 10.0, "low": 10.0, "close": 10.0, "vol": 100, "amount": 1000.0, **changes}


def bars_of(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=BAR_SCHEMA)


def run_source(settings: Settings) -> dg.ExecuteInProcessResult:
    with instance_of(settings) as instance:
        job = build_defs(settings=settings).resolve_job_def("sources")
        return job.execute_in_process(partition_key=str(DAY), instance=instance, raise_on_error=False)


def run_processor(settings: Settings) -> tuple[dg.ExecuteInProcessResult, dg.AssetCheckEvaluation]:
    """Minutes of DAY with the processor on them; the run, and the verdict on the processor."""
    with instance_of(settings) as instance:
        job = build_defs(settings=settings).resolve_job_def("make_day")
        chosen = [dg.AssetKey("bars_1m"), dg.AssetKey("doubled")]
        result = job.execute_in_process(
            partition_key=str(DAY), instance=instance, asset_selection=chosen, raise_on_error=False
        )
    (verdict,) = [e for e in result.get_asset_check_evaluations() if e.asset_key == chosen[1]]
    return result, verdict


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [e for e in result.all_events if e.is_step_failure]
    return str(event.event_specific_data.error.message)


def test_the_examples_installed_make_their_tables_and_are_compared(
    settings: Settings, clickhouse: Any, redis_client: Any, with_examples: Path
) -> None:
    found = installed(settings)
    assert ([s.name for s in found.sources], [p.name for p in found.processors]) == (["files"], ["vwap"])
    market.insert_instruments(clickhouse)
    market.insert_ticks(clickhouse)
    outcome = materialize_days(settings, [DAY])
    assert outcome["errors"] == []
    asked = (
        "SELECT count(), countIf(abs(v.vwap - b.amount / b.vol) > 1e-9 AND b.vol > 0) "
        "FROM vwap AS v FINAL JOIN bars_1m AS b FINAL USING (symbol, frame)"
    )
    assert clickhouse.query(asked).first_row == (241 * 3, 0)
    closing = "SELECT day_vwap FROM vwap FINAL WHERE symbol = '000001.SZ' ORDER BY frame DESC LIMIT 1"
    day = "SELECT amount / vol FROM bars_1d WHERE symbol = '000001.SZ'"
    assert clickhouse.query(closing).first_row == pytest.approx(clickhouse.query(day).first_row)

    theirs = clickhouse.query_arrow(
        "SELECT toString(symbol) AS symbol, frame, open, high, low, close, vol, amount FROM bars_1m", use_strings=True
    )
    seconds = theirs["frame"].cast(pa.int64()).cast(BAR_SCHEMA.field("frame").type)
    theirs = theirs.set_column(1, "frame", seconds).cast(BAR_SCHEMA)
    rows = theirs.to_pylist()
    changed = [
        {**r, "close": r["close"] + 1} if n < 10 else {**r, "vol": r["vol"] * 2} if n < 20 else r
        for n, r in enumerate(rows)
    ]
    (with_examples / "1m").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(changed[:-30], schema=BAR_SCHEMA), with_examples / "1m" / f"{DAY}.parquet")
    result = run_source(settings)
    assert result.success
    verdicts = {
        e.check_name: e for e in result.get_asset_check_evaluations() if e.asset_key == dg.AssetKey("files_bars_1m")
    }
    assert {name: v.passed for name, v in verdicts.items()} == dict.fromkeys(
        ("rows_match", "volume_matches", "ohlc_matches"), False
    )
    assert {v.severity for v in verdicts.values()} == {dg.AssetCheckSeverity.WARN}
    assert verdicts["ohlc_matches"].metadata["found"].value == "10 of 693 bars differ"
    assert clickhouse.query("SELECT count() FROM files_bars FINAL WHERE period = '1m'").first_row == (693,)


def test_lineage_and_the_minutes_run_include_them(settings: Settings, with_examples: Path) -> None:
    defs = build_defs(settings=settings)
    specs = {s.key.to_user_string(): s for s in defs.resolve_all_asset_specs()}
    assert {d.asset_key.to_user_string() for d in specs["files_bars_1d"].deps} == {"bars_1d"}
    assert {d.asset_key.to_user_string() for d in specs["vwap"].deps} == {"bars_1m"}
    jobs = defs.get_repository_def()
    made = {
        n: {k.to_user_string() for k in jobs.get_job(n).asset_layer.executable_asset_keys}
        for n in ("finalize_minutes", "make_day", "sources")
    }
    assert "vwap" in made["finalize_minutes"] & made["make_day"]
    assert made["sources"] == {"files_bars_1m", "files_bars_1d"}
    pending = Pending(DAY, at(DAY, 571), at(DAY, 572), 2)
    asked = request(pending, 1, ("5m",), at(DAY, 572), installed(settings).processors)
    assert [k.to_user_string() for k in asked.asset_selection] == ["bars_1m", "vwap"]
    with instance_of(settings) as instance:
        job = defs.resolve_job_def("finalize_minutes")
        assert (
            job.execute_in_process(
                run_config=asked.run_config,
                partition_key=str(DAY),
                instance=instance,
                asset_selection=asked.asset_selection,
                raise_on_error=False,
            )
            is not None
        )


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda: 1 / 0, "plug-in vendor raised ZeroDivisionError"),
        (lambda: sys.exit(3), "plug-in vendor raised SystemExit: 3"),
        (lambda: threading.Event().wait(60), "no answer within 0.3 s (QMT_PLUGIN_SECONDS)"),
        ([1, 2], "expected a pyarrow.Table, found list"),
        (bars_of(bar()).drop_columns(["vol"]), "columns differ: missing ['vol']"),
        (bars_of(bar()).set_column(6, "vol", pa.array([1.5])), "column vol: expected int64, found double"),
        (bars_of(bar(), bar(vol=5)), "each symbol and frame once, found 1 rows more"),
        (bars_of(bar(close=None)), "expected no nulls, found some in close"),
        (bars_of(bar(frame=at(date(2025, 6, 4), 600))), "expected rows of 2025-06-05"),
        (bars_of(bar(symbol="999999.SZ")), "symbols that were asked for, found 999999.SZ"),
    ],
    ids=["raises", "exits", "hangs", "no table", "columns", "types", "twice", "nulls", "another day", "another symbol"],
)
def test_a_source_that_misbehaves_fails_its_own_step_with_its_own_words(
    settings: Settings, clickhouse: Any, redis_client: Any, monkeypatch: pytest.MonkeyPatch, answer: Any, said: str
) -> None:
    entry(monkeypatch, plugins.SOURCES, Vendor(answer))
    market.insert_instruments(clickhouse)
    result = run_source(settings.model_copy(update={"plugin_seconds": 0.3}))
    assert said in failure_of(result)
    assert clickhouse.query("SELECT count() FROM vendor_bars").first_row == (0,)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda bars: 1 / 0, "raised ZeroDivisionError"),
        (lambda bars: threading.Event().wait(60), "no answer within"),
        (lambda bars: bars, "columns differ"),
        (
            lambda bars: (
                Doubled()
                .process(bars)
                .set_column(1, "frame", pa.array([at(DAY, 900)] * len(bars), pa.timestamp("s", "Asia/Shanghai")))
            ),
            "each symbol and frame once",
        ),
    ],
    ids=["raises", "hangs", "columns", "frames"],
)
def test_a_processor_that_misbehaves_fails_its_check_and_no_bar(
    settings: Settings, clickhouse: Any, redis_client: Any, monkeypatch: pytest.MonkeyPatch, answer: Any, said: str
) -> None:
    entry(monkeypatch, plugins.PROCESSORS, Doubled(answer))
    market.insert_ticks(clickhouse, market.ticks(DAY, SYMBOLS[:1]))
    result, verdict = run_processor(settings.model_copy(update={"plugin_seconds": 1.0}))
    assert result.success
    assert clickhouse.query("SELECT count() FROM bars_1m").first_row == (241,)
    assert (verdict.check_name, verdict.passed, verdict.severity.value) == ("computed", False, "ERROR")
    assert said in str(verdict.metadata["found"].value)


@pytest.mark.parametrize(
    ("group", "plugin", "why"),
    [
        (plugins.SOURCES, ImportError("no module named vendor"), "ImportError: no module named vendor"),
        (plugins.SOURCES, object(), "expected a name"),
        (plugins.SOURCES, type("S", (Vendor,), {"name": "qmt"})(None), "no table of ours begins with, found 'qmt'"),
        (plugins.SOURCES, type("S", (Vendor,), {"periods": ("7h",)})(None), "found '7h'"),
        (plugins.PROCESSORS, type("P", (Doubled,), {"period": "7m"})(), "found '7m'"),
        (plugins.PROCESSORS, type("P", (Doubled,), {"schema": pa.schema([("at", pa.date32())])})(), "at: date32"),
    ],
)
def test_a_plug_in_that_cannot_be_loaded_is_an_asset_that_says_why(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, group: str, plugin: Any, why: str
) -> None:
    entry(monkeypatch, group, plugin)
    ((_, found),) = installed(settings).broken
    assert why in found
    specs = {s.key.to_user_string(): s for s in build_defs(settings=settings).resolve_all_asset_specs()}
    assert why in str(specs["broken_it"].description)
    assert "bars_1m" in specs


def test_a_source_with_snapshots_has_ticks_of_its_own(
    settings: Settings, clickhouse: Any, redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Both(Vendor):
        def snapshots(self, day: date, symbols: Sequence[str]) -> pa.Table:
            return market.ticks(day, symbols[:1]).cast(TICK_SCHEMA)

    entry(monkeypatch, plugins.SOURCES, Both(bars_of(bar())))
    market.insert_instruments(clickhouse)
    assert run_source(settings).success
    counted = (
        "SELECT (SELECT count() FROM vendor_ticks), (SELECT count() FROM ticks), (SELECT count() FROM vendor_bars)"
    )
    assert clickhouse.query(counted).first_row == (len(market.ticks(DAY, SYMBOLS[:1])), 0, 1)


def test_a_table_of_other_columns_is_refused_by_name(
    settings: Settings, clickhouse: Any, redis_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clickhouse.command(
        "CREATE TABLE doubled (symbol String, frame DateTime, other Int8, version UInt64) ENGINE = Memory"
    )
    entry(monkeypatch, plugins.PROCESSORS, Doubled())
    market.insert_ticks(clickhouse, market.ticks(DAY, SYMBOLS[:1]))
    _, verdict = run_processor(settings)
    assert not verdict.passed
    assert "table doubled: expected the columns [('twice', 'Float64')]" in str(verdict.metadata["found"].value)
