"""The query API over a filled warehouse: what comes back, and what is refused with which words."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from qmt_orchestration import client as api
from qmt_orchestration.cli.main import app
from qmt_orchestration.client import errors, reading
from qmt_orchestration.client.api import forget_known_symbols
from qmt_orchestration.local import engines
from qmt_orchestration.market.periods import UnknownPeriod
from qmt_orchestration.market.sessions import SHANGHAI
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.clock import publish_clock
from qmt_orchestration.warehouse import bars
from qmt_orchestration_tests.client import filled
from qmt_orchestration_tests.client.filled import DAYS, EX_DATE, INTEREST, SYMBOLS
from qmt_orchestration_tests.helpers import free_port
from qmt_orchestration_tests.orchestration import market

A, B, C = SYMBOLS
DAY = DAYS[1]


@pytest.fixture(scope="module")
def world(engine_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with filled.warehouse(engine_settings, tmp_path_factory.mktemp("api")) as (settings, _):
        yield settings


def test_bars_of_several_symbols_ordered_with_their_columns(world: Settings) -> None:
    found = api.bars([C, "sz300750"], DAY, DAY, settings=world)
    assert list(found.columns) == [
        "symbol", "frame", "open", "high", "low", "close", "vol", "amount", "source", "ticks", "quality_score",
    ]  # fmt: skip
    assert found.groupby("symbol", sort=False).size().to_dict() == {B: 241, C: 241}
    assert str(found.frame.dt.tz) == "Asia/Shanghai"
    assert (found.frame.iloc[0], found.frame.iloc[240]) == (
        pd.Timestamp("2025-06-05 09:30", tz=SHANGHAI),
        pd.Timestamp("2025-06-05 15:00", tz=SHANGHAI),
    )
    assert api.bars(None, DAY, DAY, settings=world).symbol.nunique() == 3
    part = api.bars(B, "2025-06-05 09:30", "20250605093100", settings=world)
    assert [f"{t:%H:%M}" for t in part.frame] == ["09:30", "09:31"]


@pytest.mark.parametrize("minutes", [5, 15, 30, 60])
def test_a_period_without_a_table_follows_the_rule_of_the_stored_ones(world: Settings, minutes: int) -> None:
    found = api.bars(A, DAYS[0], DAY, f"{minutes}m", settings=world)
    assert len(found) == 2 * 240 // minutes
    one = api.bars(A, DAYS[0], DAY, "1m", settings=world)
    index = one.frame.dt.hour * 60 + one.frame.dt.minute
    i = np.maximum(index - np.where(index <= 690, 570, 660), 1)
    keys = [one.frame.dt.date, (i + minutes - 1) // minutes]
    expected = one.groupby(keys).agg(
        frame=("frame", "last"), open=("open", "first"), high=("high", "max"), low=("low", "min"),
        close=("close", "last"), vol=("vol", "sum"), amount=("amount", "sum"),
    ).reset_index(drop=True)  # fmt: skip
    pd.testing.assert_frame_equal(found[list(expected.columns)], expected)
    assert [f"{t:%H:%M}" for t in api.bars(A, DAY, DAY, "1h", settings=world).frame] == [
        "10:30",
        "11:30",
        "14:00",
        "15:00",
    ]


def test_weeks_and_months_hold_their_whole_days_wherever_the_range_begins(world: Settings) -> None:
    days = api.bars(A, None, None, "1d", settings=world)
    for period, start in (("1w", "2025-06-05"), ("1mo", "2025-06-05"), ("1mon", "2025-06-05")):
        (found,) = api.bars(A, start, None, period, settings=world).to_dict("records")
        assert found["frame"] == days.frame.iloc[-1]
        assert (found["open"], found["close"]) == (days.open.iloc[0], days.close.iloc[-1])
        assert (found["high"], found["low"], found["vol"]) == (days.high.max(), days.low.min(), days.vol.sum())


def test_an_unfinished_window_is_left_out(engine_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    with filled.database(engine_settings, tmp_path_factory.mktemp("open")) as (settings, client):
        rows = [
            [A, datetime(2025, 6, 5, 9, m, tzinfo=SHANGHAI), 10, 10, 10, 10, 1, 1, 1, 1, 1, 1] for m in range(30, 48)
        ]
        names = ["symbol", "frame", "open", "high", "low", "close", "vol", "amount", "source", "ticks", "quality_score"]
        client.insert("bars_1m", rows, column_names=[*names, "version"])
        found = api.bars(A, DAY, DAY, "15m", settings=settings)
        assert [f"{t:%H:%M}" for t in found.frame] == ["09:45"]


def test_adjusted_prices_of_every_period(world: Settings) -> None:
    raw = api.bars(A, None, None, "1d", settings=world)
    assert api.bars(A, None, None, "1d", "front", settings=world).close.tolist() == pytest.approx(
        [raw.close[0] - INTEREST, raw.close[1]]
    )
    assert api.bars(A, None, None, "1d", "back", settings=world).close.tolist() == pytest.approx(
        [raw.close[0], raw.close[1] + INTEREST]
    )
    assert api.bars(A, None, None, "1d", "front_ratio", settings=world).open.tolist() == pytest.approx(
        [round(raw.open[0] / 1.03, 2), raw.open[1]]
    )
    before = api.bars(A, DAYS[0], DAYS[0], "5m", "front", settings=world)
    assert before.high.to_numpy() == pytest.approx(api.bars(A, DAYS[0], DAYS[0], "5m", settings=world).high - INTEREST)
    assert before.vol.sum() == raw.vol[0]
    other = api.bars(B, None, None, "1d", "back", settings=world)
    assert other.close.tolist() == api.bars(B, None, None, "1d", settings=world).close.tolist()


def test_the_running_day_has_a_daily_bar_as_far_as_it_has_come(
    engine_settings: Settings, tmp_path_factory: pytest.TempPathFactory, redis_client: Any
) -> None:
    """At any second, whether the minutes so far are final or not; once the day has its own bar, that one."""
    with filled.database(engine_settings, tmp_path_factory.mktemp("running")) as (settings, client):
        table, shown = market.ticks(DAY), ["open", "high", "low", "close", "vol", "amount"]
        for hour, minute, second in ((9, 26, 0), (10, 3, 20), (14, 59, 30)):
            now = datetime(2025, 6, 5, hour, minute, second, tzinfo=SHANGHAI)
            publish_clock(redis_client, int(now.timestamp() * 1000), 0.0)
            client.command("TRUNCATE TABLE ticks")
            seen = table.filter(pc.less(table["time"], now))
            market.insert_ticks(client, seen)
            (found,) = api.bars(A, DAY, DAY, "1d", settings=settings).to_dict("records")
            own = seen.filter(pc.equal(seen["symbol"], A)).to_pandas()
            last = own.iloc[-1]
            wanted = (last.open, last.high, last.low, last.lastPrice, last.total_volume, last.amount)
            assert tuple(found[name] for name in shown) == pytest.approx(wanted)
            assert (found["frame"], found["ticks"]) == (pd.Timestamp("2025-06-05 15:00", tz=SHANGHAI), len(own))
            assert found["quality_score"] == 0.5
            bars.finalize(client, DAY)
            (again,) = api.bars(A, DAY, DAY, "1d", settings=settings).to_dict("records")
            assert again == found
        bars.roll_up(client, DAY, "1d")
        assert api.bars(None, DAY, DAY, "1d", settings=settings).quality_score.tolist() == [1.0] * 3


def test_ticks_of_a_day_without_withdrawn_ones(
    engine_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with filled.database(engine_settings, tmp_path_factory.mktemp("ticks")) as (settings, client):
        table = market.ticks(DAY)
        market.insert_ticks(client, table)
        row = table.slice(9, 1)
        flagged = row.set_column(
            row.schema.get_field_index("flags"), row.schema.field("flags"), pa.array([128], pa.uint32())
        )
        market.insert_ticks(client, flagged)
        symbol = row.column("symbol")[0].as_py()
        found = api.ticks(symbol, DAY, settings=settings)
        whole = table.filter(pa.compute.equal(table.column("symbol"), symbol))
        assert len(found) == whole.num_rows - 1
        assert row.column("time")[0].as_py() not in set(found.time)
        assert found.time.is_monotonic_increasing
        few = api.ticks(
            symbol, "2025-06-05 10:00", "2025-06-05 10:01", fields=["lastPrice", "bidPrice"], settings=settings
        )
        assert list(few.columns) == ["symbol", "time", "lastPrice", "bidPrice"]
        assert 20 <= len(few) <= 21
        for wrong in (["lastprice"], [5], 5):
            with pytest.raises(errors.UnknownField, match=r"lastprice|5"):
                api.ticks(symbol, DAY, fields=wrong, settings=settings)  # type: ignore[arg-type]


def test_quotes_and_the_snapshot_of_the_market(world: Settings) -> None:
    table = market.ticks(DAY)
    last = {row["symbol"]: row for row in table.to_pylist()}
    found = api.quotes([C, A], settings=world)
    assert found.symbol.tolist() == [C, A]
    for row in found.to_dict("records"):
        tick = last[row["symbol"]]
        assert (row["price"], row["vol"], row["amount"], row["high"]) == (
            tick["lastPrice"], tick["total_volume"], tick["amount"], tick["high"],
        )  # fmt: skip
        assert row["change"] == pytest.approx(tick["lastPrice"] - 10.0)
        assert row["change_percent"] == pytest.approx(10 * row["change"], abs=0.001)
    whole = api.snapshot(settings=world)
    assert whole.symbol.tolist() == sorted(SYMBOLS)
    assert whole.nlargest(1, "vol").symbol.iloc[0] in SYMBOLS
    pd.testing.assert_frame_equal(api.snapshot(settings=world), whole)


def test_the_snapshot_follows_new_ticks_and_a_new_day(
    engine_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with filled.database(engine_settings, tmp_path_factory.mktemp("follow")) as (settings, client):
        assert list(api.snapshot(settings=settings).columns)[:3] == ["symbol", "time", "price"]
        table = market.ticks(DAYS[0])
        market.insert_ticks(client, table.slice(0, 3))  # the opening call of all three
        assert len(api.snapshot(settings=settings)) == 3
        alone = table.filter(pa.compute.equal(table.column("symbol"), A))
        market.insert_ticks(client, alone.slice(0, 2000))
        prices = api.snapshot(settings=settings).set_index("symbol")
        assert prices.vol[A] == alone.column("total_volume")[1999].as_py()
        assert prices.vol[B] == table.column("total_volume")[1].as_py()
        market.insert_ticks(client, market.ticks(DAY).slice(0, 2))
        assert api.snapshot(settings=settings).symbol.tolist() == [A, B]
        assert api.quotes([A, B, C], settings=settings).time.dt.date.tolist() == [DAY, DAY, DAYS[0]]


def test_the_snapshot_is_right_on_withdrawn_late_and_equal_ticks(
    engine_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with filled.database(engine_settings, tmp_path_factory.mktemp("withdrawn")) as (settings, client):
        table = market.ticks(DAY)
        a, b, c = (table.filter(pa.compute.equal(table.column("symbol"), symbol)) for symbol in (A, B, C))

        def vol(rows: pa.Table, row: int) -> int:
            return int(rows.column("total_volume")[row].as_py())

        def changed(rows: pa.Table, **columns: Any) -> pa.Table:
            for name, value in columns.items():
                place = rows.schema.get_field_index(name)
                values = pa.array([value] * rows.num_rows, rows.schema.field(place).type)
                rows = rows.set_column(place, rows.schema.field(place), values)
            return rows

        def found() -> dict[str, int]:
            """By the question that reads what is new, and by the one that begins from scratch."""
            kept = api.snapshot(settings=settings).set_index("symbol").vol.to_dict()
            another = settings.model_copy(update={"data_dir": tmp_path_factory.mktemp("another")})
            assert api.snapshot(settings=another).set_index("symbol").vol.to_dict() == kept
            return dict(kept)

        market.insert_ticks(client, pa.concat_tables([a.slice(0, 1001), b.slice(0, 11), c.slice(0, 2)]))
        assert found() == {A: vol(a, 1000), B: vol(b, 10), C: vol(c, 1)}
        market.insert_ticks(client, changed(pa.concat_tables([a.slice(1000, 1), b.slice(10, 1)]), flags=128))
        assert found() == {A: vol(a, 999), B: vol(b, 9), C: vol(c, 1)}
        market.insert_ticks(
            client, pa.concat_tables([a.slice(1000, 1), b.slice(8, 1)])
        )  # sent again after the withdrawal
        assert found() == {A: vol(a, 999), B: vol(b, 9), C: vol(c, 1)}
        market.insert_ticks(client, changed(a.slice(999, 1), volume=99_999, total_volume=9_999_900))  # of the same time
        market.insert_ticks(client, a.slice(990, 2))  # late ones
        assert found() == {A: 9_999_900, B: vol(b, 9), C: vol(c, 1)}
        market.insert_ticks(client, changed(c.slice(0, 2), flags=128))
        assert found() == {A: 9_999_900, B: vol(b, 9)}  # nothing is left of C


def test_instruments_members_factors_and_the_calendar(world: Settings) -> None:
    listed = api.instruments(settings=world)
    assert listed.symbol.tolist() == sorted(SYMBOLS)
    assert {"day", "symbol", "name", "board", "pre_close", "up_stop", "down_stop", "suspended"} <= set(listed.columns)
    assert api.instruments(A, "20250604", settings=world).day.iloc[0] == DAYS[0]
    assert api.members("深证A股", settings=world) == sorted(SYMBOLS)
    with pytest.raises(errors.UnknownSector, match="沪深A股"):
        api.members("半导体", settings=world)
    events = api.factors(A, settings=world).to_dict("records")
    assert [(e["symbol"], e["ex_date"], e["interest"]) for e in events] == [(A, EX_DATE, INTEREST)]
    none = api.factors(B, settings=world)
    assert len(none) == 0
    assert list(none.columns)[:3] == ["symbol", "ex_date", "interest"]
    assert api.trading_days("2025/5/30", date(2025, 6, 4)) == [date(2025, 5, 30), date(2025, 6, 3), date(2025, 6, 4)]
    assert (api.is_trading_day("20250602"), api.is_trading_day("2025-06-03")) == (False, True)
    with pytest.raises(errors.FutureRange, match="the calendar is known to"):
        api.trading_days("2050-01-01", "2050-02-01")
    with pytest.raises(errors.BadTime, match="found None"):
        api.is_trading_day(None)


def test_arrow_and_polars_hold_the_same_values(world: Settings) -> None:
    polars = pytest.importorskip("polars")
    frame = api.bars(A, DAY, DAY, settings=world)
    table = api.bars(A, DAY, DAY, as_="arrow", settings=world)
    assert table.schema.field("frame").type == pa.timestamp("s", "Asia/Shanghai")
    assert table.column("close").to_pylist() == frame.close.tolist()
    assert isinstance(api.bars(A, DAY, DAY, as_="polars", settings=world), polars.DataFrame)
    assert (
        api.quotes(A, as_="polars", settings=world)["price"].to_list() == api.quotes(A, settings=world).price.tolist()
    )


def test_an_answer_without_rows_has_its_columns(world: Settings) -> None:
    columns = list(api.bars(A, DAY, DAY, settings=world).columns)
    for period in ("1m", "15m"):
        lunch = api.bars(A, "2025-06-05 12:00", "2025-06-05 12:30", period, settings=world)
        assert (len(lunch), list(lunch.columns)) == (0, columns)
    assert list(api.ticks(A, "2025-06-05 12:00", "2025-06-05 12:30", settings=world).columns)[:3] == [
        "symbol",
        "time",
        "lastPrice",
    ]


def test_bad_questions_are_refused_with_what_mends_them(world: Settings) -> None:
    refusals: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (UnknownPeriod, "5m, 15m, 30m", {"period": "7x"}),
        (UnknownPeriod, "'1s'", {"period": "1s"}),
        (errors.UnknownAdjustment, "front_ratio", {"adjust": "forward"}),
        (errors.UnknownSymbol, r"600001\.SH: the nearest are", {"symbols": "600001"}),
        (errors.AmbiguousSymbol, r"000001\.SH", {"symbols": "000001"}),
        (errors.BadSymbol, "AAPL", {"symbols": "AAPL"}),
        (errors.QueryError, "at least one symbol", {"symbols": []}),
        (errors.BadRange, "ends before it starts", {"start": "20250606", "end": "20250605"}),
        (errors.BadTime, "2025-06-31", {"start": "2025-06-31"}),
        (
            errors.NoDataInRange,
            "stored from 2025-06-04 09:30 to 2025-06-05 15:00",
            {"start": "20240102", "end": "20240103"},
        ),
        (errors.FutureRange, "lies in the future", {"start": "20990105", "end": "20990106"}),
        (errors.QueryError, "pandas, arrow, polars", {"as_": "numpy"}),
    ]
    for kind, words, change in refusals:
        question: dict[str, Any] = {"symbols": A, "start": DAY, "end": DAY, **change}
        with pytest.raises(kind, match=words) as refused:
            api.bars(**question, settings=world)
        assert "\n" not in str(refused.value)
    with pytest.raises(errors.UnknownSymbol) as unknown:
        api.quotes("600000.SZ", settings=world)
    assert unknown.value.nearest[0] == C


def test_the_commands_take_the_same_words_and_refuse_the_same(
    world: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in world.environment().items():
        monkeypatch.setenv(name, value)
    run = CliRunner().invoke
    file = tmp_path / "bars.parquet"
    done = run(
        app, ["bars", "sz300750", "--date", "2025-06-04", "--to", "20250605", "--period", "1h", "--output", str(file)]
    )
    assert done.exit_code == 0, done.output
    stored, hours = pd.read_parquet(file), api.bars(B, DAYS[0], DAYS[1], "60m", settings=world)
    pd.testing.assert_frame_equal(stored, hours, check_dtype=False)
    refused = run(app, ["bars", "600000", "--date", "2025-06-05", "--adjust", "qfq"])
    assert "front_ratio, back_ratio, found 'qfq'" in str(refused.exception)
    unknown = run(app, ["bars", "600001", "--date", "2025-06-05"])
    assert unknown.exit_code == 1
    assert "the nearest are 600000.SH" in unknown.output
    assert "300750.SZ" in run(app, ["quote", "sz300750"]).output
    assert "000001.SH (index), 000001.SZ (stock)" in str(run(app, ["quote", "000001"]).exception)


def test_servers_that_are_away_are_named_within_seconds(settings: Settings) -> None:
    with socket.socket() as closed:  # bound and not listening: refuses
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        away = settings.model_copy(update={"clickhouse_url": url, "redis_url": url.replace("http", "redis")})
        with pytest.raises(errors.WarehouseAway, match=r"start the server of QMT_CLICKHOUSE_URL \(http://127"):
            api.bars(A, DAY, DAY, settings=away)
        with pytest.raises(errors.StreamAway, match="start the Redis of QMT_REDIS_URL"):
            reading.stream(away)
    local = settings.model_copy(update={"clickhouse_url": "", "redis_url": "", "redis_port": free_port()})
    with pytest.raises(errors.WarehouseAway, match=r"holds no warehouse: make one with `qmt up`"):
        api.bars(A, DAY, DAY, settings=local)
    with pytest.raises(errors.StreamAway, match="with `qmt up`, or set QMT_REDIS_URL"):
        reading.stream(local)
    with pytest.raises(errors.WarehouseAway, match="holds no tables of ours"):
        api.bars(A, DAY, DAY, settings=settings)  # its database was never migrated


def test_a_clickhouse_that_accepts_and_never_answers_is_given_up_in_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_ANSWER_SECONDS", 1)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        silent = settings.model_copy(update={"clickhouse_url": f"http://127.0.0.1:{deaf.getsockname()[1]}"})
        started = time.monotonic()
        with pytest.raises(errors.WarehouseAway, match="no ClickHouse answers"):
            api.bars(A, DAY, DAY, settings=silent)
        assert time.monotonic() - started < 20


def test_local_data_of_a_stopped_system_is_read_and_left_free(tmp_path: Any) -> None:
    local = Settings(data_dir=tmp_path / "data", ticks_ttl_days=20_000, redis_port=free_port())
    with engines.ensure(local, names=("clickhouse",)) as ready:
        from qmt_orchestration.warehouse.client import connect
        from qmt_orchestration.warehouse.migrate import migrate

        migrate(ready)
        with connect(ready) as client:
            market.insert_ticks(client)
            market.make_bars(client)
    forget_known_symbols()
    assert engines.find(local, "clickhouse") is None
    assert len(api.bars(A, DAY, DAY, settings=local)) == 241
    assert engines.find(local, "clickhouse") is not None
    assert len(api.quotes(SYMBOLS, settings=local)) == 3
    reading.close()
    assert engines.find(local, "clickhouse") is None


def test_a_query_finds_a_clickhouse_that_was_restarted_elsewhere(tmp_path: Any) -> None:
    local = Settings(data_dir=tmp_path / "data", redis_port=free_port(), clickhouse_port=free_port())
    with engines.ensure(local, names=("clickhouse",)) as ready:
        from qmt_orchestration.warehouse.migrate import migrate

        migrate(ready)
        assert len(api.instruments(settings=local)) == 0
    assert len(api.instruments(settings=local)) == 0  # that engine is gone: another is started for this
    reading.close()


def test_the_query_api_loads_neither_dagster_nor_xtquant() -> None:
    code = (
        "import sys; from qmt_orchestration.client import bars, quotes, snapshot; "
        "import qmt_orchestration.client.xtdata; "
        "print([m for m in sys.modules if m.split('.')[0] in ('dagster', 'xtquant', 'pandas')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
