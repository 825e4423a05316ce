"""Every check of data: passes on a clean day and fails on damage planted in ClickHouse, with evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from qmt_orchestration.market import calendar
from qmt_orchestration.market.sessions import SHANGHAI, at
from qmt_orchestration.orchestration.assets.reference import calendar_horizon
from qmt_orchestration.orchestration.checks.evaluate import Outcome, Window, find, judge, record, results, run_check
from qmt_orchestration.quality import names
from qmt_orchestration.quality.names import CHECKS
from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse import bars
from qmt_orchestration_tests.orchestration import market
from qmt_orchestration_tests.orchestration.market import DAY, SYMBOLS

ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN


@dataclass(frozen=True)
class Damage:
    """Damage to a clean day, which check sees it, how badly, and what its evidence names."""

    asset: str
    check: str
    severity: dg.AssetCheckSeverity
    plant: Callable[[Any], Any]
    names: str

    def __str__(self) -> str:
        return f"{self.asset}-{self.check}"


def sql(*statements: str) -> Callable[[Any], None]:
    """Damage by SQL, as an operator's mistake would do it."""

    def plant(client: Any) -> None:
        for statement in statements:
            client.command(statement, settings={"mutations_sync": 1})

    return plant


def drop_batch(client: Any) -> None:
    """One batch of the feed never arrives."""
    client.command("TRUNCATE TABLE ticks")
    table = market.ticks()
    market.insert_ticks(client, table.filter(pa.compute.not_equal(table["seq"], pa.scalar(7, pa.uint64()))))


def reject(client: Any) -> None:
    """A tenth of the day's ticks is rejected at ingestion."""
    client.command(
        "INSERT INTO ticks_rejected (symbol, time, received_at, session, reason, detail, payload) "
        "SELECT symbol, time, now64(3), session, 'backward_time', 'expected later', '{}' FROM ticks WHERE seq % 10 = 0"
    )


def again(table: str) -> Callable[[Any], None]:
    """Every row stored once more, as it stands."""
    return sql(f"INSERT INTO {table} SELECT * FROM {table} SETTINGS insert_deduplicate = 0")


def recompute(client: Any) -> None:
    """A bar that its ticks do not give, found when the day is computed once more."""
    sql("ALTER TABLE bars_1m UPDATE vol = vol + 1 WHERE frame = '2025-06-05 10:07:00' AND symbol = '600000.SH'")(client)
    bars.recompute(client, DAY, at(DAY, 900))


def history(*columns: str) -> Callable[[Any], None]:
    """QMT's bars differ from ours for one symbol."""
    return sql(f"ALTER TABLE qmt_bars UPDATE {', '.join(columns)} WHERE symbol = '000001.SZ'")


DAMAGE = [
    Damage("ticks", names.ROWS_PRESENT, ERROR, sql("DELETE FROM ticks WHERE symbol = '000001.SZ'"), "000001.SZ"),
    Damage("ticks", names.SEQUENCE_CONTINUOUS, ERROR, drop_batch, "'first_missing': '7'"),
    Damage("ticks", names.NO_DUPLICATE_KEYS, WARN, again("ticks"), "000001.SZ"),
    Damage("ticks", names.NO_SILENCE, ERROR, sql("DELETE FROM ticks WHERE toHour(time) = 10"), "09:59:5"),
    Damage("ticks", names.SHARE_REJECTED, ERROR, reject, "backward_time"),
    Damage("bars_1m", names.ROWS_PRESENT, ERROR, sql("DELETE FROM bars_1m WHERE symbol = '300750.SZ'"), "300750.SZ"),
    Damage(
        "bars_1m",
        names.NO_MISSING_FRAMES,
        ERROR,
        sql("DELETE FROM bars_1m WHERE symbol = '300750.SZ' AND toHour(frame) = 10"),
        "2025-06-05 10:00:00",
    ),
    Damage("bars_1m", names.RECOMPUTED_EQUAL, ERROR, recompute, "2025-06-05 10:07:00"),
    Damage("bars_1m", names.NO_DUPLICATE_KEYS, ERROR, again("bars_1m"), "'copies': '2'"),
    Damage(
        "bars_1m",
        names.OHLC_CONSISTENT,
        ERROR,
        sql("ALTER TABLE bars_1m UPDATE low = high + 1 WHERE frame = '2025-06-05 10:07:00' AND symbol = '600000.SH'"),
        "low above open or close",
    ),
    Damage(
        "bars_1m",
        names.WITHIN_PRICE_LIMITS,
        WARN,
        sql("ALTER TABLE bars_1m UPDATE high = 11.01 WHERE frame = '2025-06-05 10:07:00' AND symbol = '600000.SH'"),
        "600000.SH",
    ),
    Damage(
        "bars_1m",
        names.SHARE_FILLED,
        WARN,
        sql("ALTER TABLE bars_1m UPDATE source = 'filled' WHERE symbol != '600000.SH'"),
        "000001.SZ",
    ),
    *(
        damage
        for table in ("bars_5m", "bars_30m", "bars_1d")
        for damage in (
            Damage(
                table, names.ROWS_PRESENT, ERROR, sql(f"DELETE FROM {table} WHERE symbol = '300750.SZ'"), "300750.SZ"
            ),
            Damage(table, names.NO_DUPLICATE_KEYS, ERROR, again(table), "'copies': '2'"),
            Damage(
                table,
                names.OHLC_CONSISTENT,
                ERROR,
                sql(f"ALTER TABLE {table} UPDATE close = -close WHERE symbol = '600000.SH'"),
                "a price is not positive",
            ),
            Damage(
                table,
                names.VOLUME_ADDS_UP,
                ERROR,
                sql(f"ALTER TABLE {table} UPDATE vol = vol + 1 WHERE symbol = '600000.SH'"),
                "600000.SH",
            ),
        )
    ),
    Damage("bars_1m", names.QMT_ROWS, ERROR, sql("DELETE FROM bars_1m WHERE symbol = '000001.SZ'"), "000001.SZ"),
    Damage("bars_1m", names.QMT_VOLUME, ERROR, history("vol = vol + 200"), "000001.SZ"),
    Damage("bars_1m", names.QMT_AMOUNT, ERROR, history("amount = amount * 1.01"), "000001.SZ"),
    Damage("bars_1m", names.QMT_OHLC, ERROR, history("close = close + 0.01"), "000001.SZ"),
    Damage("bars_1m", names.QMT_DAILY, ERROR, history("vol = vol + 200"), "000001.SZ"),
    Damage(
        "instruments",
        names.COUNT_AGAINST_YESTERDAY,
        ERROR,
        sql("DELETE FROM instruments WHERE day = '2025-06-05' AND symbol = '600000.SH'"),
        "600000.SH",
    ),
    Damage(
        "instruments",
        names.LIMITS_KNOWN,
        WARN,
        sql("ALTER TABLE instruments UPDATE up_stop = 0 WHERE symbol = '600000.SH'"),
        "600000.SH",
    ),
    Damage(
        "instruments",
        names.KINDS_AGREE,
        WARN,
        sql("ALTER TABLE instruments UPDATE kind_doubt = 'type fund' WHERE symbol = '600000.SH'"),
        "type fund",
    ),
]


TABLES = ("ticks", "ticks_rejected", "bars_1m", "bars_5m", "bars_30m", "bars_1d", "qmt_bars", "instruments")


@pytest.fixture(scope="module")
def kept_day(engine_settings: Settings) -> Iterator[Any]:
    """A database with one clean day in every table, and a copy of each table beside it."""
    from qmt_orchestration.warehouse.client import connect
    from qmt_orchestration.warehouse.migrate import migrate

    chosen = engine_settings.model_copy(update={"clickhouse_database": "qmt_checks", "ticks_ttl_days": 20_000})
    migrate(chosen)
    with connect(chosen) as client:
        market.insert_instruments(client, calendar.previous_trading_day(DAY))
        market.insert_instruments(client)
        market.insert_ticks(client)
        market.make_bars(client)
        market.insert_qmt_bars(client)
        for table in TABLES:
            client.command(f"CREATE TABLE kept_{table} ENGINE = MergeTree ORDER BY tuple() AS SELECT * FROM {table}")
        yield client
        client.command("DROP DATABASE qmt_checks SYNC")


def parts(client: Any) -> dict[str, set[str]]:
    """The parts that hold each table's rows: any change makes another."""
    active = "SELECT table, name FROM system.parts WHERE active AND database = currentDatabase()"
    found: dict[str, set[str]] = {table: set() for table in TABLES}
    for table, name in client.query(active).result_rows:
        found.setdefault(table, set()).add(name)
    return found


@pytest.fixture
def clean_day(kept_day: Any) -> Iterator[Any]:
    """The warehouse of `kept_day`; what a test has changed is put back after it."""
    before = parts(kept_day)
    yield kept_day
    after = parts(kept_day)
    for table in TABLES:
        if after[table] != before[table]:
            kept_day.command(f"TRUNCATE TABLE {table}")
            kept_day.command(f"INSERT INTO {table} SELECT * FROM kept_{table} SETTINGS insert_deduplicate = 0")


def outcome_of(client: Any, settings: Settings, asset: str, check: str) -> Outcome:
    """The check's verdict on DAY."""
    return run_check(find(asset, check), client, settings, Window.whole(DAY))


def test_every_check_passes_on_a_clean_day(clean_day: Any, settings: Settings) -> None:
    failed = [
        (c.asset, c.name, o.expected, o.found)
        for c in CHECKS
        if c.sql and c.name != names.STORAGE
        if not (o := run_check(c, clean_day, settings, Window.whole(DAY))).passed
    ]
    assert failed == []


@pytest.mark.parametrize("damage", DAMAGE, ids=str)
def test_a_check_fails_on_its_damage_and_names_it(damage: Damage, clean_day: Any, settings: Settings) -> None:
    damage.plant(clean_day)
    outcome = outcome_of(clean_day, settings, damage.asset, damage.check)
    assert not outcome.passed, f"found {outcome.found}"
    assert outcome.severity == damage.severity
    assert any(damage.names in str(row) for row in outcome.worst), outcome.worst


def test_a_withdrawn_tick_is_no_duplicate_of_the_tick_that_it_withdraws(clean_day: Any, settings: Settings) -> None:
    columns = "* REPLACE(bitOr(flags, 128)::UInt32 AS flags)"
    clean_day.command(f"INSERT INTO ticks SELECT {columns} FROM ticks WHERE seq % 10 = 0")
    outcome = outcome_of(clean_day, settings, "ticks", names.NO_DUPLICATE_KEYS)
    assert (outcome.passed, outcome.measure) == (True, 0.0)


def test_every_sql_check_has_its_damage() -> None:
    tried = {(d.asset, d.check) for d in DAMAGE}
    # below, on days of their own
    apart = {("ticks", names.DELAY), ("ticks", names.STORAGE), ("bars_1m", names.SYMBOLS_KEEP_TICKING)}
    assert {(c.asset, c.name) for c in CHECKS if c.sql} == tried | apart


def test_a_slow_feed_is_seen_and_a_recording_is_not_taken_for_one(clickhouse: Any, settings: Settings) -> None:
    day = calendar.previous_trading_day(datetime.now(SHANGHAI).date())
    check = find("ticks", names.DELAY)
    market.insert_ticks(clickhouse, market.ticks(day, SYMBOLS[:1]))
    assert run_check(check, clickhouse, settings, Window.whole(day)).passed
    market.insert_ticks(clickhouse, market.ticks(day, SYMBOLS[1:], delay_ms=9_000))
    slow = run_check(check, clickhouse, settings, Window.whole(day))
    assert not slow.passed
    assert slow.measure == pytest.approx(9_000)
    assert slow.worst[0]["p99_ms"] == "9000"
    clickhouse.command("TRUNCATE TABLE ticks")
    market.insert_ticks(clickhouse, market.ticks(day, delay_ms=86_400_000))
    assert "no live ticks" in run_check(check, clickhouse, settings, Window.whole(day)).found


def test_a_full_disk_is_seen(clickhouse: Any, settings: Settings) -> None:
    check = find("ticks", names.STORAGE)
    roomy = settings.model_copy(update={"quality_disk_share_warn": 1.0, "quality_disk_share_error": 1.0})
    assert run_check(check, clickhouse, roomy, Window.whole(DAY)).passed
    tight = settings.model_copy(update={"quality_disk_share_warn": 0.0, "quality_disk_share_error": 0.0})
    full = run_check(check, clickhouse, tight, Window.whole(DAY))
    assert not full.passed
    assert full.severity == ERROR
    assert "percent in use" in full.found


def test_symbols_that_fall_silent_together_are_seen_and_single_halts_are_not(
    clickhouse: Any, settings: Settings
) -> None:
    """A part of the feed that goes leaves filled bars behind, which are complete and consistent: nobody would know."""
    clickhouse.command(
        "INSERT INTO bars_1m (symbol, frame, open, high, low, close, vol, amount, source, ticks, quality_score, "
        "version) SELECT concat(toString(600000 + number), '.SH'), "
        "toDateTime('2025-06-05 09:30:00', 'Asia/Shanghai') + 60 * arrayJoin(range(121)), "
        "10, 10, 10, 10, 100, 1000, 'live', 20, 1, 1 FROM numbers(60)"
    )

    def silence(symbols: int, minute: str, ticks: int = 0) -> None:
        clickhouse.command(
            f"ALTER TABLE bars_1m UPDATE ticks = {ticks}, source = 'filled' WHERE frame = '2025-06-05 {minute}:00' "
            f"AND symbol < '{600000 + symbols}.SH'",
            settings={"mutations_sync": 1},
        )

    silence(5, "10:01")
    assert outcome_of(clickhouse, settings, "bars_1m", names.SYMBOLS_KEEP_TICKING).passed, "five halts"
    silence(6, "10:16")
    gone = outcome_of(clickhouse, settings, "bars_1m", names.SYMBOLS_KEEP_TICKING)
    assert (gone.passed, gone.severity, gone.measure) == (False, ERROR, pytest.approx(0.1))
    assert "6 of 60 symbols fell silent in 10:16" in gone.found
    assert gone.worst[0]["among_them"] == "600000.SH, 600001.SH, 600002.SH"
    silence(60, "10:31", ticks=4)
    assert outcome_of(clickhouse, settings, "bars_1m", names.SYMBOLS_KEEP_TICKING).found == gone.found, "a thin minute"
    silence(60, "10:46", ticks=3)
    dead = outcome_of(clickhouse, settings, "bars_1m", names.SYMBOLS_KEEP_TICKING)
    assert (dead.passed, dead.severity, dead.measure) == (False, ERROR, 1.0), "only what re-subscribing brings"
    assert "60 of 60 symbols fell silent in 10:46" in dead.found


def test_a_symbol_of_its_own_trouble_is_named_beside_an_outage_of_the_market(
    clickhouse: Any, settings: Settings
) -> None:
    clickhouse.command(
        "INSERT INTO bars_1m (symbol, frame, open, high, low, close, vol, amount, source, ticks, quality_score, "
        "version) SELECT concat(toString(600000 + number), '.SH'), "
        "toDateTime('2025-06-05 09:30:00', 'Asia/Shanghai') + 60 * arrayJoin(range(121)) AS frame, "
        "10, 10, 10, 10, 100, 1000, 'live', 20, 1, 1 FROM numbers(60) "
        "WHERE NOT (frame BETWEEN '2025-06-05 09:51:00' AND '2025-06-05 10:05:00') "
        "AND NOT (number = 17 AND frame = '2025-06-05 10:30:00')"
    )
    found = outcome_at(clickhouse, settings, "bars_1m", names.NO_MISSING_FRAMES, 690)
    assert found.found == "901 missing, of 60 symbols"
    assert [(row["symbol"], row["missing"], row["last"][-8:]) for row in found.worst] == [
        ("600000.SH, 600001.SH, 600002.SH and 56 others", "15", "10:05:00"),
        ("600017.SH", "16", "10:30:00"),
    ]


def outcome_at(client: Any, settings: Settings, asset: str, check: str, minute: int) -> Outcome:
    """The check's verdict on DAY up to *minute* of it."""
    return run_check(find(asset, check), client, settings, Window.whole(DAY, at(DAY, minute)))


def test_a_table_is_not_missed_before_its_first_bar_can_be_there(clickhouse: Any, settings: Settings) -> None:
    """At 09:36 there is no half-hour bar, and that is right; it was an ERROR every morning."""
    market.insert_instruments(clickhouse)
    for asset, before in (("bars_1m", 570), ("bars_5m", 574), ("bars_30m", 599), ("bars_1d", 899)):
        early = outcome_at(clickhouse, settings, asset, names.ROWS_PRESENT, before)
        assert early.passed, asset
        assert "nothing before" in early.expected
        assert not outcome_at(clickhouse, settings, asset, names.ROWS_PRESENT, before + 1).passed, asset


def test_a_symbol_that_has_not_traded_yet_is_not_missed(clean_day: Any, settings: Settings) -> None:
    """Illiquid ones tick from 09:15 on and trade in the afternoon: until then they have no bar."""
    market.insert_instruments(clean_day, symbols=("000009.SZ",))
    assert not outcome_of(clean_day, settings, "bars_1m", names.ROWS_PRESENT).passed, "neither ticks nor bars"
    clean_day.command("TRUNCATE TABLE ticks")
    quiet = market.ticks(symbols=("000009.SZ",)).slice(0, 1)
    zero = pa.array([0], pa.int64())
    for name in ("volume", "pvolume", "total_volume"):
        quiet = quiet.set_column(quiet.schema.get_field_index(name), quiet.schema.field(name), zero)
    market.insert_ticks(clean_day, quiet)
    assert outcome_of(clean_day, settings, "bars_1m", names.ROWS_PRESENT).passed


def test_less_than_a_lot_is_an_amount_without_volume(clean_day: Any, settings: Settings) -> None:
    """QMT's history has whole lots and whole yuan: an odd lot of 40 shares is 0 lots and 400 yuan, and no error."""
    odd = "ALTER TABLE bars_1m UPDATE vol = 0, amount = {} WHERE frame = '2025-06-05 10:07:00' AND symbol = '600000.SH'"
    sql(odd.format(400))(clean_day)
    assert outcome_of(clean_day, settings, "bars_1m", names.OHLC_CONSISTENT).passed
    sql(odd.format(40_000))(clean_day)
    assert "amount without volume" in outcome_of(clean_day, settings, "bars_1m", names.OHLC_CONSISTENT).found


def test_no_data_at_all_fails_the_presence_checks(clickhouse: Any, settings: Settings) -> None:
    """An empty day must not pass for a good one."""
    for asset in ("ticks", "bars_1m", "bars_5m", "bars_30m", "bars_1d"):
        assert not outcome_of(clickhouse, settings, asset, names.ROWS_PRESENT).passed
    assert not outcome_of(clickhouse, settings, "instruments", names.COUNT_AGAINST_YESTERDAY).passed
    assert not outcome_of(clickhouse, settings, "bars_1m", names.QMT_ROWS).passed


def test_a_session_that_began_the_day_before_is_no_loss(clickhouse: Any, settings: Settings) -> None:
    """A feed that runs through the night goes on counting: the first number of the new day is not zero."""
    later = market.ticks(calendar.next_trading_day(DAY))
    index = later.schema.get_field_index("seq")
    shifted = pa.array(np.asarray(later["seq"]) + 143, pa.uint64())
    market.insert_ticks(clickhouse)
    market.insert_ticks(clickhouse, later.set_column(index, later.schema.field("seq"), shifted))
    check = find("ticks", names.SEQUENCE_CONTINUOUS)
    assert run_check(check, clickhouse, settings, Window.whole(calendar.next_trading_day(DAY))).passed


def test_the_calendars_end_is_announced_before_it_comes(settings: Settings) -> None:
    horizon = calendar.horizon()
    assert calendar_horizon(settings, DAY).passed
    last = calendar.trading_days(DAY, horizon)
    near = calendar_horizon(settings, last[-settings.quality_calendar_days])
    assert (near.passed, near.severity) == (False, WARN)
    assert "exchange-calendars" in near.found
    assert calendar_horizon(settings, last[-2]).severity == ERROR
    assert calendar_horizon(settings, last[-settings.quality_calendar_days - 1]).passed


def test_suspended_symbols_are_not_missed(clean_day: Any, settings: Settings) -> None:
    clean_day.command(
        "INSERT INTO instruments (day, symbol, name, board, pre_close, up_stop, down_stop, suspended, listed) "
        "VALUES ('2025-06-05', '000002.SZ', 'suspended', 'sz_main', 10, 11, 9, 1, 1)"
    )
    for asset in ("ticks", "bars_1m", "bars_5m", "bars_30m"):
        assert outcome_of(clean_day, settings, asset, names.ROWS_PRESENT).passed


def test_verdicts_are_kept_per_day_and_run(clickhouse: Any, settings: Settings) -> None:
    check = find("bars_1m", names.OHLC_CONSISTENT)
    for run_id, measure in (("first", 3.0), ("second", 0.0)):
        record(clickhouse, [judge(check, settings, DAY, measure, "none", f"{measure}", [{"symbol": "x"}])], run_id)
    rows = clickhouse.query(
        "SELECT run_id, passed, severity, JSONExtractFloat(evidence, 'measure') FROM quality_results ORDER BY at"
    ).result_rows
    assert [tuple(r) for r in rows] == [("first", 0, "ERROR", 3.0), ("second", 1, "WARN", 0.0)]


def test_a_range_of_days_fails_with_its_worst_day(settings: Settings) -> None:
    check = find("ticks", names.SHARE_REJECTED)
    days = [DAY + timedelta(days=i) for i in range(3)]
    outcomes = [judge(check, settings, d, m, "few", f"{m}") for d, m in zip(days, (0.0, 0.5, 0.002), strict=True)]
    (result,) = results(outcomes)
    assert not result.passed
    assert result.severity == ERROR
    assert result.metadata["partition"].value == str(days[1])
    assert result.metadata["days_failed"].value == f"{days[1]}, {days[2]}"


def test_a_day_still_running_is_judged_up_to_now() -> None:
    now = at(DAY, 600)
    assert Window.whole(DAY, now).last == now
    assert Window.whole(DAY - timedelta(days=1), now).last == at(DAY - timedelta(days=1), 900)
    assert Window.whole(date(2025, 6, 6), now).last == at(date(2025, 6, 6), 570)
