"""The edge, by the traps of published payloads (``payloads.jsonl``) and the rules of the tick."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmt_orchestration.feed.edge import Checked, Edge, Received, rejected_table
from qmt_orchestration.feed.memory import Memory, trading_ms_between
from qmt_orchestration.feed.universe import Universe
from qmt_orchestration.market.schema import REJECTED_SCHEMA, TickFlag, check_schema
from qmt_orchestration_tests.helpers import recordings

MIDNIGHT = 1_749_052_800_000  # 2025-06-05 00:00 in Shanghai
SYMBOL = "000001.SZ"
EMPTY_BOOK = [0.0] * 5


def at(clock: str) -> int:
    hour, minute, second = map(float, clock.split(":"))
    return MIDNIGHT + int(((hour * 60 + minute) * 60 + second) * 1000)


def tick(clock: str = "10:00:00", shares: int = 100_000, price: float = 11.39, **changes: Any) -> dict[str, Any]:
    """A complete tick as the whole quote delivers it."""
    return {
        "time": at(clock),
        "lastPrice": price,
        "open": price,
        "high": price,
        "low": price,
        "lastClose": price if price > 13 else 11.38,
        "amount": shares * price,
        "volume": shares // 100,
        "pvolume": shares,
        "stockStatus": 3,
        "openInt": 13,
        "transactionNum": 37,
        "askPrice": list(EMPTY_BOOK),
        "bidPrice": list(EMPTY_BOOK),
        "askVol": [0] * 5,
        "bidVol": [0] * 5,
        **changes,
    }


def edge(*symbols: str, recording: bool = False) -> Edge:
    return Edge(Memory(Universe(sorted(symbols or (SYMBOL,))), 60.0), by_first_tick=recording)


def feed(to: Edge, payload: Any, *, now: str = "15:00:00", snapshot_at: str = "", recording: bool = False) -> Checked:
    moment = at(snapshot_at) if snapshot_at else 0
    return to.process([Received(at(now), payload, moment)], None if recording else at(now))


def started(*symbols: str) -> Edge:
    """An edge whose subscription began before the open, so that there is no gap."""
    out = edge(*symbols)
    out.memory.day, out.memory.assess = (MIDNIGHT + 8 * 3_600_000) // 86_400_000, False
    return out


def reasons(outcome: Checked) -> list[str]:
    return [row["reason"] for row in outcome.rejected]


def column(outcome: Checked, name: str) -> list[Any]:
    assert outcome.table is not None
    return list(outcome.table.column(name).to_pylist())


# -- shapes ------------------------------------------------------------------------------------------------------


def test_whole_quote_gives_a_mapping_and_a_single_quote_a_list() -> None:
    to = started()
    assert column(feed(to, {SYMBOL: tick("10:00:00")}), "pvolume") == [100_000]
    both = feed(to, {SYMBOL: [tick("10:00:03", 100_100), tick("10:00:06", 100_200)]})
    assert column(both, "pvolume") == [100_100, 100_200]


def test_plain_rows_are_accepted_with_shares_from_lots() -> None:
    row = [at("10:00:00"), 11.3, 11.4, 11.2, 11.39, 1000, 1_139_000.0]
    outcome = feed(started(), {SYMBOL: [row]})
    assert column(outcome, "lastPrice") == [11.39]
    assert column(outcome, "flags")[0] & TickFlag.LOTS_GUARD
    assert feed(started(), {SYMBOL: row}).table is not None  # one row, not wrapped


@pytest.mark.parametrize("value", ["nonsense", [[1, 2, 3]], 7, [None]])
def test_other_shapes_are_rejected(value: Any) -> None:
    outcome = feed(started(), {SYMBOL: value})
    assert reasons(outcome) == ["bad_payload"]
    assert outcome.received == 1


def test_a_payload_that_is_no_mapping_is_rejected() -> None:
    outcome = feed(started(), ["garbage"])
    assert (reasons(outcome), outcome.received) == (["bad_payload"], 1)


def test_codes_outside_the_universe_are_counted_by_prefix() -> None:
    outcome = feed(started(), {SYMBOL: tick(), "510050.SH": tick(), "510300.SH": [tick(), tick()], "999999.SH": tick()})
    assert outcome.filtered == {"510.SH": 3, "999.SH": 1}
    assert outcome.received == 5


# -- fields ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lastPrice", "open", "high", "low", "lastClose", "amount", "volume", "time"])
def test_a_required_field_is_required(name: str) -> None:
    broken = tick()
    del broken[name]
    outcome = feed(started(), {SYMBOL: broken})
    assert reasons(outcome) == ["missing_field"]
    assert name in outcome.rejected[0]["detail"]
    assert reasons(feed(started(), {SYMBOL: tick(**{name: None})})) == ["missing_field"]


def test_old_builds_without_count_and_books_pass() -> None:
    """get_full_tick during the opening call: books null, no transactionNum, volume 0, a virtual price."""
    opening = tick("09:23:36", 0, price=35.8, open=0, high=0, low=0, askVol=None, bidVol=None)
    del opening["transactionNum"], opening["pvolume"]
    outcome = feed(started(), {SYMBOL: opening})
    assert column(outcome, "askVol") == [[0] * 5]
    assert column(outcome, "transactionNum") == [0]


def test_timetag_replaces_a_missing_time() -> None:
    late = tick(timetag="20250605 11:30:01")
    del late["time"]
    assert column(feed(started(), {SYMBOL: late}), "time")[0].strftime("%H:%M:%S") == "11:30:01"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lastPrice": "11.39"}, "wrong_type"),
        ({"volume": True}, "wrong_type"),
        ({"askPrice": "11"}, "wrong_type"),
        ({"stockStatus": 2**40}, "wrong_type"),
        ({"pvolume": 2**70}, "wrong_type"),
        ({"amount": 10**400}, "not_finite"),
        ({"amount": True}, "wrong_type"),
        ({"time": "2025-06-05 10:00:00"}, "wrong_type"),
        ({"volume": 2**37}, "volume_too_large"),
        ({"pvolume": 2**37}, "volume_too_large"),
        ({"volume": 2**31, "pvolume": 0}, "volume_too_large"),
        ({"lastPrice": 11.5}, "price_outside_day"),
        ({"open": 1.14}, "price_outside_day"),
        ({"time": at("09:10:00")}, "bad_time"),
        ({"time": at("15:00:06")}, "bad_time"),
        ({"lastPrice": float("nan")}, "not_finite"),
        ({"amount": float("inf")}, "not_finite"),
        ({"volume": float("nan")}, "not_finite"),
        ({"low": -1.0}, "negative"),
        ({"volume": -5}, "negative"),
        ({"lastPrice": 0.0}, "zero_price"),
        ({"time": 1_749_085_200}, "bad_time"),
        ({"time": MIDNIGHT + 86_400_000 * 400}, "bad_time"),
        ({"time": at("15:20:00")}, "bad_time"),
        ({"time": at("10:00:00") - 86_400_000}, "other_day"),
    ],
)
def test_values_that_cannot_be_are_rejected(changes: dict[str, Any], reason: str) -> None:
    assert reasons(feed(started(), {SYMBOL: tick(**changes)})) == [reason]


def test_a_minute_bar_is_no_tick() -> None:
    """subscribe_quote(period="1m"): other fields, with garbage in preClose and suspendFlag."""
    bar = {
        "time": at("09:30:00"),
        "open": 35.5,
        "high": 35.5,
        "low": 35.5,
        "close": 35.5,
        "volume": 790,
        "amount": 2.8e6,
    }
    outcome = feed(started(), {SYMBOL: [{**bar, "preClose": 6.9e-310, "suspendFlag": 370262668}]})
    assert reasons(outcome) == ["missing_field"]


def test_one_bad_tick_does_not_take_its_neighbours_along() -> None:
    symbols = [f"{600000 + i}.SH" for i in range(10)]
    payload = {s: tick() for s in symbols}
    payload[symbols[3]]["lastPrice"] = None
    payload[symbols[7]]["askPrice"] = [11.4, 11.41]
    outcome = feed(started(*symbols), payload)
    assert column(outcome, "symbol") == [s for s in symbols if s != symbols[3]]
    assert column(outcome, "askPrice")[6] == [11.4, 11.41, 0, 0, 0]


def test_rejected_ticks_keep_their_payload_and_the_schema() -> None:
    table = rejected_table(feed(started(), {SYMBOL: tick(lastPrice="x" * 9000)}).rejected, "s")
    check_schema(table.schema, REJECTED_SCHEMA)
    payload = table.column("payload")[0].as_py()
    assert '"lastClose": 11.38' in payload or len(payload) == 4096


def test_published_payloads_with_their_traps() -> None:
    """Every line of payloads.jsonl: accepted with the right flags, or rejected for the right reason."""
    for line in (recordings() / "payloads.jsonl").read_text().splitlines():
        sample = json.loads(line)
        to = edge(*sample["payload"], recording=True)
        outcome = feed(to, sample["payload"], recording=True)
        if "period='1m'" in sample["api"]:
            assert reasons(outcome) == ["missing_field"]
            continue
        assert reasons(outcome) == [], sample["api"]
        assert len(column(outcome, "symbol")) == len(sample["payload"]) == outcome.received
        guarded = "pvolume is 0" in sample["api"] or "pvolume == volume" in sample["api"]
        assert all(bool(flag & TickFlag.LOTS_GUARD) is guarded for flag in column(outcome, "flags")), sample["api"]
        assert {f"{time:%Y-%m-%d %H:%M:%S}" for time in column(outcome, "time")} == {sample["cst"]}


# -- order -------------------------------------------------------------------------------------------------------


def test_duplicates_and_late_ticks_are_rejected_at_once() -> None:
    to = started()
    assert reasons(feed(to, {SYMBOL: tick("10:00:03", 100_000)})) == []
    assert reasons(feed(to, {SYMBOL: tick("10:00:03", 100_000)})) == ["duplicate"]
    assert reasons(feed(to, {SYMBOL: tick("10:00:00", 99_900)})) == ["backward_time"]
    assert reasons(feed(to, {SYMBOL: tick("10:00:03", 100_200)})) == []  # the same second, more volume: a tick
    assert reasons(feed(to, {SYMBOL: tick("10:00:03", 100_000)})) == ["duplicate"]  # one before the last, sent again


def test_what_falls_is_rejected_as_soon_as_the_next_tick_agrees_with_the_memory() -> None:
    to = started()
    feed(to, {SYMBOL: tick("10:00:03", 100_000)})
    assert reasons(feed(to, {SYMBOL: tick("10:00:06", 99_000)})) == []
    assert reasons(feed(to, {SYMBOL: tick("10:00:06", 100_000, amount=5.0)})) == ["backward_volume"]
    assert reasons(feed(to, {SYMBOL: tick("10:00:09", 100_200)})) == ["amount_contradicts"]


def test_a_bad_tick_does_not_condemn_those_after_it() -> None:
    rows = [tick("10:00:00", 100), tick("10:00:03", 300), tick("10:00:06", 200), tick("10:00:09", 400)]
    outcome = feed(started(), {SYMBOL: rows})
    assert column(outcome, "pvolume") == [100, 300, 400]
    assert reasons(outcome) == ["backward_volume"]


def test_the_last_session_replayed_at_login_is_rejected() -> None:
    yesterday = tick(time=at("15:00:00") - 86_400_000)
    outcome = feed(edge(), {SYMBOL: yesterday}, now="09:00:00", snapshot_at="09:00:00")
    assert reasons(outcome) == ["other_day"]


def test_a_new_day_begins_with_its_first_tick() -> None:
    to = started()
    feed(to, {SYMBOL: tick("15:00:00", 900_000)})
    tomorrow = 86_400_000
    opening = tick(time=at("09:25:00") + tomorrow, pvolume=500, volume=5, amount=5_695.0)
    outcome = to.process([Received(0, {SYMBOL: opening})], at("09:25:03") + tomorrow)
    assert outcome.new_day
    assert reasons(outcome) == []
    assert column(outcome, "flags") == [0]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8), st.integers(0, 4)), min_size=1, max_size=40), st.data())
def test_any_batching_gives_the_same_verdicts(rows: list[tuple[int, int, int]], data: st.DataObject) -> None:
    """The vectorised check and the walk tick by tick are the same rule: cut the feed anywhere."""
    symbols = [f"60000{i}.SH" for i in range(6)]
    ticks = [(symbols[s], tick(f"10:00:{t:02d}", 100 * v)) for s, t, v in rows]
    one_by_one, batched = started(*symbols), started(*symbols)
    verdicts = [feed(one_by_one, {s: t}) for s, t in ticks]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ticks)), max_size=5)))
    outcomes = [
        batched.process([Received(at("15:00:00"), {s: t}) for s, t in ticks[a:b]], at("15:00:00"))
        for a, b in zip([0, *cuts], [*cuts, len(ticks)], strict=True)
        if b > a
    ]

    def accepted(results: list[Checked]) -> list[tuple[Any, ...]]:
        names = ("symbol", "time", "pvolume")
        return [row for o in results if o.table for row in zip(*(column(o, n) for n in names), strict=True)]

    outcomes, verdicts = [*outcomes, batched.flush()], [*verdicts, one_by_one.flush()]
    assert sorted(accepted(outcomes)) == sorted(accepted(verdicts))
    assert sorted(r for o in outcomes for r in reasons(o)) == sorted(r for o in verdicts for r in reasons(o))
    assert sum(o.received for o in outcomes) == len(ticks)


# -- flags -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "flag", "score"),
    [
        ({}, TickFlag(0), 1.0),
        ({"pvolume": 0}, TickFlag.LOTS_GUARD, 0.9),
        ({"pvolume": 1000}, TickFlag.LOTS_GUARD, 0.9),
    ],
)
def test_doubtful_ticks_are_flagged_and_score_less(changes: dict[str, Any], flag: TickFlag, score: float) -> None:
    outcome = feed(started(), {SYMBOL: tick(**changes)})
    assert column(outcome, "flags") == [flag]
    assert column(outcome, "quality_score")[0] == pytest.approx(score)


def test_a_limit_up_price_is_inside_the_limits() -> None:
    outcome = feed(started(), {SYMBOL: tick(price=12.52)})  # 11.38 × 1.1 = 12.518
    assert column(outcome, "flags") == [0]


def test_a_tick_ahead_of_the_clock_is_flagged() -> None:
    outcome = feed(started(), {SYMBOL: tick("10:00:04")}, now="10:00:00")
    assert column(outcome, "flags") == [TickFlag.CLOCK_SKEW]


# -- coverage ----------------------------------------------------------------------------------------------------


def test_a_cold_start_in_mid_session_makes_baselines() -> None:
    symbols = ["000001.SZ", "000002.SZ"]
    to = edge(*symbols)
    first = feed(to, {symbols[0]: tick("10:00:00", 5_000_000)}, now="10:00:01", snapshot_at="10:00:01")
    assert first.gap
    assert column(first, "flags") == [TickFlag.BASELINE | TickFlag.SNAPSHOT]
    assert column(feed(to, {symbols[0]: tick("10:00:03", 5_000_100)}), "flags") == [0]
    assert column(feed(to, {symbols[1]: tick("10:00:03", 700)}), "flags") == [TickFlag.BASELINE]


def test_a_first_start_by_0931_is_no_gap() -> None:
    outcome = feed(edge(), {SYMBOL: tick("09:30:58", 100)}, now="09:31:00", snapshot_at="09:31:00")
    assert not outcome.gap


def test_a_short_restart_with_memory_is_no_gap_and_repeats_nothing() -> None:
    to = started()
    feed(to, {SYMBOL: tick("10:00:00", 100)})
    outcome = feed(to, {SYMBOL: tick("10:00:00", 100)}, now="10:00:40", snapshot_at="10:00:40")
    assert not outcome.gap
    assert reasons(outcome) == ["duplicate"]


def test_after_an_outage_only_symbols_that_moved_need_a_baseline() -> None:
    moved, still = "000001.SZ", "000002.SZ"
    to = started(moved, still)
    feed(to, {moved: tick("10:00:00", 100), still: tick("10:00:00", 100)})
    snapshot = {moved: tick("10:04:59", 900), still: tick("10:00:00", 100)}
    outcome = feed(to, snapshot, now="10:05:00", snapshot_at="10:05:00")
    assert outcome.gap
    assert column(outcome, "flags") == [TickFlag.BASELINE | TickFlag.SNAPSHOT]
    assert column(feed(to, {still: tick("10:05:03", 200)}), "flags") == [0]


def test_the_lunch_break_is_no_outage() -> None:
    to = started()
    feed(to, {SYMBOL: tick("11:30:01", 100)})
    outcome = feed(to, {SYMBOL: tick("13:00:20", 200)}, now="13:00:21", snapshot_at="13:00:21")
    assert not outcome.gap
    assert trading_ms_between(at("11:29:30"), at("13:00:20")) == 50_000


@pytest.mark.parametrize(("first", "gap"), [("09:25:00", False), ("09:30:30", False), ("10:15:00", True)])
def test_in_a_recording_the_first_tick_decides(first: str, gap: bool) -> None:
    outcome = feed(edge(recording=True), {SYMBOL: [tick(first, 100), tick("10:40:00", 200)]}, recording=True)
    assert outcome.gap is gap
    assert column(outcome, "flags") == [TickFlag.BASELINE if gap else 0, 0]


@pytest.mark.parametrize(("first", "flag"), [("09:30:59", 0), ("14:59:03", TickFlag.BASELINE)])
def test_a_symbol_recorded_from_mid_session_on_begins_with_a_baseline(first: str, flag: int) -> None:
    """The others of its recording began in time; a symbol that was seen before it traded did, too."""
    seen, late = "000001.SZ", "000002.SZ"
    to = edge(seen, late, recording=True)
    feed(to, {seen: tick("09:15:00", 0)}, recording=True)
    outcome = feed(to, {seen: tick(first, 100), late: [tick(first, 100), tick("14:59:30", 200)]}, recording=True)
    flags = list(zip(column(outcome, "symbol"), column(outcome, "flags"), strict=True))
    assert sorted(flags) == [(seen, 0), (late, 0), (late, flag)]
