"""Symbols and times as people write them."""

from __future__ import annotations

from datetime import date, datetime, timezone

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmt_orchestration.client.errors import AmbiguousSymbol, BadRange, BadSymbol, BadTime
from qmt_orchestration.client.moments import EARLIEST_MS, LATEST_MS, parse, span
from qmt_orchestration.client.symbols import PREFIXES, kind_of, lot_size_of, nearest, normalize, normalize_all
from qmt_orchestration.market.sessions import SHANGHAI, from_ms, to_ms

SYMBOLS = st.sampled_from(
    [(market, prefix) for market, kinds in PREFIXES.items() for prefixes in kinds.values() for prefix in prefixes]
).flatmap(
    lambda pair: st.integers(0, 10 ** (6 - len(pair[1])) - 1).map(
        lambda n: f"{pair[1]}{n:0{6 - len(pair[1])}d}.{pair[0]}"
    )
)
SUFFIXES = {
    "SH": ["SH", "sh", "XSHG", "xshg", "SS", "SSE"],
    "SZ": ["SZ", "sz", "XSHE", "SZSE"],
    "BJ": ["BJ", "bj", "BSE"],
}


@given(symbol=SYMBOLS, data=st.data())
def test_every_way_of_writing_a_symbol_with_its_exchange_means_the_same(symbol: str, data: st.DataObject) -> None:
    code, market = symbol.split(".")
    exchange = data.draw(st.sampled_from(SUFFIXES[market]))
    point, blank = data.draw(st.sampled_from(["", "."])), data.draw(st.sampled_from(["", " "]))
    for text in (f"{code}{point}{exchange}", f"{exchange}{point}{code}"):
        assert normalize(blank + text + blank) == symbol
    assert normalize(normalize(symbol)) == symbol


@given(symbol=SYMBOLS)
def test_a_bare_code_is_its_only_symbol_or_refused_with_all_of_them(symbol: str) -> None:
    code = symbol.split(".")[0]
    possible = [f"{code}.{market}" for market in PREFIXES if kind_of(f"{code}.{market}")]
    assert symbol in possible
    if len(possible) == 1:
        assert normalize(code) == symbol
    else:
        with pytest.raises(AmbiguousSymbol) as refused:
            normalize(code)
        assert list(refused.value.candidates) == possible
        assert all(candidate in str(refused.value) for candidate in possible)


@given(text=st.text(max_size=12))
def test_any_text_is_a_symbol_or_refused_by_name(text: str) -> None:
    try:
        found = normalize(text)
    except (BadSymbol, AmbiguousSymbol):
        return
    else:
        assert found.encode("ascii")[:6].isdigit()
        assert found[6:] in (".SH", ".SZ", ".BJ")


def test_well_known_symbols() -> None:
    assert normalize("600519") == "600519.SH"
    assert normalize("sh600519") == "600519.SH"
    assert normalize("000001.XSHE") == "000001.SZ"
    assert normalize("SZ000001") == "000001.SZ"
    assert normalize("159915") == "159915.SZ"
    assert normalize_all(["600519", "600519.SH", "sz300750"]) == ["600519.SH", "300750.SZ"]
    with pytest.raises(AmbiguousSymbol, match=r"000001\.SH \(index\), 000001\.SZ \(stock\)"):
        normalize("000001")
    for wrong in ("", "6005", "600519.HK", "SH.600519.SH", "６００５１９", 600519, None):
        with pytest.raises(BadSymbol):
            normalize(wrong)  # type: ignore[arg-type]


def test_kinds_lots_and_the_nearest_symbols() -> None:
    kinds = {"000001.SH": "index", "000001.SZ": "stock", "510300.SH": "etf", "113050.SH": "bond", "204001.SH": "repo"}
    assert {symbol: kind_of(symbol) for symbol in kinds} == kinds
    assert kind_of("751000.SH") is None
    assert [lot_size_of(s) for s in ("600000.SH", "510300.SH", "113050.SH", "123050.SZ")] == [100, 100, 10, 10]
    known = ["000001.SZ", "600000.SH", "600519.SH", "600518.SH"]
    assert nearest("600519.SZ", known)[0] == "600519.SH"
    assert nearest("600517.SH", known)[:1][0].startswith("60051")


MOMENT = to_ms(datetime(2025, 6, 5, 9, 30, tzinfo=SHANGHAI))


@pytest.mark.parametrize(
    "text",
    ["20250605093000", "202506050930", "2025-06-05 09:30", "2025-06-05 09:30:00", "2025/6/5 9:30",
     "2025-06-05T09:30:00", "2025-06-05T09:30:00+08:00", "2025-06-05T01:30:00Z", "2025.06.05 09:30:00.000", MOMENT,
     datetime(2025, 6, 5, 9, 30),  # noqa: DTZ001
     datetime(2025, 6, 5, 1, 30, tzinfo=timezone.utc),
     pd.Timestamp("2025-06-05 09:30"), pd.Timestamp("2025-06-05 01:30", tz="UTC")],
)  # fmt: skip
def test_one_time_in_every_form(text: object) -> None:
    assert parse(text) == MOMENT  # type: ignore[arg-type]
    assert parse(text, end=True) == MOMENT  # type: ignore[arg-type]


@pytest.mark.parametrize("day", ["20250605", "2025-06-05", "2025/6/5", "2025.6.5", 20250605, date(2025, 6, 5)])
def test_a_bare_date_is_its_whole_day(day: object) -> None:
    midnight = to_ms(datetime(2025, 6, 5, tzinfo=SHANGHAI))
    within = span(day, day)  # type: ignore[arg-type]
    assert (within.first_ms, within.last_ms) == (midnight, midnight + 86_400_000 - 1)
    assert within.first_day == within.last_day == date(2025, 6, 5)


def test_open_sides_and_refusals() -> None:
    assert span(None, "") == span("", None)
    assert (span(None, None).first_ms, span(None, None).last_ms) == (EARLIEST_MS, LATEST_MS)
    with pytest.raises(BadRange, match="ends before it starts"):
        span("20250605", "20250604")
    for wrong in (
        "yesterday",
        "2025-13-01",
        "20250230",
        "2025-06-05 25:00",
        "1",
        1.5,
        True,
        pd.NaT,
        "20250605 ",
        "99990101",
    ):
        if wrong == "20250605 ":
            assert parse(wrong) == parse("20250605")
            continue
        with pytest.raises(BadTime):
            parse(wrong)  # type: ignore[arg-type]


@given(seconds=st.integers(EARLIEST_MS // 1000, LATEST_MS // 1000))
def test_digits_dashes_and_objects_agree(seconds: int) -> None:
    expected = seconds * 1000
    moment = from_ms(expected).replace(tzinfo=None)
    for form in ("%Y%m%d%H%M%S", "%Y-%m-%d %H:%M:%S", "%Y/%m/%dT%H:%M:%S"):
        assert parse(moment.strftime(form)) == expected
    assert parse(moment) == expected


@given(text=st.text(max_size=20))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        found = parse(text)
    except BadTime:
        return
    assert found is None or EARLIEST_MS <= found <= LATEST_MS
