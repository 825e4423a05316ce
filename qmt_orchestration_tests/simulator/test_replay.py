"""Replay of recordings: every row exactly once, in order, and nothing at all of a file that is not right."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qmt_orchestration.market.recordings import RecordingError
from qmt_orchestration.settings import Settings
from qmt_orchestration.simulator.engine import Simulation
from qmt_orchestration.simulator.replay import ReplaySource, load_recording

T0 = 1_654_046_100_000  # 2022-06-01 09:15:00 Shanghai
NAMES = ("lastPrice", "open", "high", "low", "lastClose", "amount")


def recording(rows: int = 500, seed: int = 1, days: int = 1) -> pa.Table:
    """A recording in random order of symbols, some time stamps repeated, every row recognisable by its pvolume."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, 3_000_000, rows) // 1000 * 1000) + T0
    times += np.sort(rng.integers(0, days, rows)) * 86_400_000
    symbols = rng.choice(["000400.SZ", "300122.SZ", "600519.SH", "920002.BJ"], rows)
    columns: dict[str, Any] = {"symbol": symbols.tolist(), "time": times}
    columns |= {name: rng.random(rows).round(2) + 10 for name in NAMES}
    columns |= {"volume": np.arange(rows), "pvolume": np.arange(rows) + seed * 1_000_000}
    columns |= {name: np.full(rows, 13, np.int32) for name in ("stockStatus", "openInt")}
    return pa.table(columns)


def write(table: pa.Table, path: Path) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(table.column_names)
            writer.writerows(row.values() for row in table.to_pylist())
    else:
        pq.write_table(table, path)
    return path


def replayed(*paths: Path, speed: float = 0) -> list[dict[str, dict[str, Any]]]:
    """All pushes that a subscriber to the whole market gets."""
    sim = Simulation(Settings(feed="replay", replay_files=paths, replay_speed=speed))
    pushes: list[dict[str, dict[str, Any]]] = []
    assert sim.subscribe(["SH", "SZ", "BJ"], "whole", pushes.append) > 0
    assert sim.finished.wait(60)
    sim.close()
    assert not sim.failed
    return pushes


def flat(pushes: list[dict[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    return [(symbol, tick) for push in pushes for symbol, tick in push.items()]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("speed", [0, 20_000])
def test_every_row_comes_exactly_once_and_in_time_order(tmp_path: Path, suffix: str, speed: float) -> None:
    tables = [recording(700, 1), recording(400, 2, days=2)]
    paths = [write(t, tmp_path / f"{i}{suffix}") for i, t in enumerate(tables)]
    got = flat(replayed(*paths, speed=speed))
    rows = [r for t in tables for r in t.to_pylist()]
    assert len(got) == len(rows)
    assert sorted(t["pvolume"] for _, t in got) == sorted(r["pvolume"] for r in rows)
    by_id = {r["pvolume"]: r for r in rows}
    for symbol, tick in got:
        assert {"symbol": symbol, **{k: tick[k] for k in by_id[1_000_000] if k != "symbol"}} == by_id[tick["pvolume"]]
    times = [t["time"] for _, t in got]
    assert times == sorted(times)
    first = [t["pvolume"] for _, t in got if t["pvolume"] < 2_000_000]
    assert first == sorted(first), "rows of equal time keep the order of their file"


def test_unusual_integer_float_and_string_types_are_welcome(tmp_path: Path) -> None:
    table = recording(50)
    types = {"symbol": pa.dictionary(pa.int32(), pa.large_string()), "volume": pa.uint32(), "openInt": pa.uint8()}
    types |= {"lastPrice": pa.float32(), "pvolume": pa.int32(), "time": pa.uint64()}
    table = table.cast(pa.schema([(field.name, types.get(field.name, field.type)) for field in table.schema]))
    ticks = flat(replayed(write(table, tmp_path / "a.parquet")))
    assert [s for s, _ in ticks] == table.column("symbol").to_pylist()
    assert {type(t["pvolume"]) for _, t in ticks} == {int}
    assert {type(t["lastPrice"]) for _, t in ticks} == {float}


def test_whole_numbers_in_other_types_and_moments_with_a_zone_are_the_same_recording(tmp_path: Path) -> None:
    table = recording(50)
    types = {"volume": pa.float64(), "pvolume": pa.decimal128(20, 0), "openInt": pa.float32()}
    types["time"] = pa.timestamp("ms", "Asia/Shanghai")
    other = table.cast(pa.schema([(field.name, types.get(field.name, field.type)) for field in table.schema]))
    plain = load_recording([write(table, tmp_path / "plain.parquet")])
    assert load_recording([write(other, tmp_path / "other.parquet")]).equals(plain)


def test_a_shuffled_recording_plays_like_the_ordered_one(tmp_path: Path) -> None:
    table = recording(400)
    mixed = table.take(np.random.default_rng(3).permutation(400))
    plain = load_recording([write(table, tmp_path / "plain.parquet")])
    assert load_recording([write(mixed, tmp_path / "mixed.parquet")]).equals(plain)


def test_a_row_that_lacks_a_value_is_played_and_left_to_the_edge(tmp_path: Path) -> None:
    table = swap(recording(20), "amount", pa.array([None, float("nan")] + [1.0] * 18))
    table = swap(table, "pvolume", pa.array([None, *range(19)]))
    table = swap(table, "lastClose", pa.array([None] * 19 + [10.0]))
    ticks = [tick for _, tick in flat(replayed(write(table, tmp_path / "a.parquet")))]
    assert len(ticks) == 20
    assert sum(tick["amount"] != tick["amount"] for tick in ticks) == 2
    assert sorted(tick["pvolume"] for tick in ticks if tick["pvolume"] is not None) == list(range(19))
    source = ReplaySource(load_recording([tmp_path / "a.parquet"]))
    assert sorted(source.previous_closes.values())[-1] == 10.0
    assert set(source.previous_closes) == set(source.members.shares)


def test_books_come_as_lists_of_any_kind_and_as_text_from_a_csv(tmp_path: Path) -> None:
    plain = recording(4)
    book = plain.append_column("askPrice", pa.array([[1.5, None], None, [float("nan"), 2.0], []]))
    book = book.append_column("askVol", pa.array([[1.0, 2.0]] * 4, pa.list_(pa.float64(), 2)))
    text = plain.append_column("askPrice", pa.array(["[1.5, 0]", "", "[0  2.0]", "[]"]))
    text = text.append_column("askVol", pa.array(["[1, 2]"] * 4))
    for path in (write(book, tmp_path / "a.parquet"), write(text, tmp_path / "a.csv")):
        loaded = load_recording([path])
        assert loaded["askPrice"].to_pylist() == [[1.5, 0], [], [0, 2], []]
        assert loaded["askVol"].to_pylist() == [[1, 2]] * 4


def test_optional_columns_are_passed_on_and_missing_ones_are_empty(tmp_path: Path) -> None:
    plain = recording(5)
    book = plain.append_column("askPrice", pa.array([[1.0, 2.0, 3.0, 4.0, 5.0]] * 5))
    book = book.append_column("transactionNum", pa.array(range(5)))
    (tick, *_) = [t for _, t in flat(replayed(write(book, tmp_path / "book.parquet")))]
    assert tick["askPrice"] == [1, 2, 3, 4, 5]
    assert tick["bidVol"] == [0] * 5
    assert flat(replayed(write(plain, tmp_path / "plain.parquet")))[0][1]["transactionNum"] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop_columns(["pvolume", "openInt"]), ["columns missing: pvolume, openInt", "found: symbol"]),
        (lambda t: swap(t, "volume", pa.array([1.5] * 20)), ["volume: expected integer, found double", "1.5"]),
        (lambda t: swap(t, "volume", pa.array(["1"] * 20)), ["volume: expected integer, found string"]),
        (
            lambda t: swap(t, "pvolume", pa.array([2.0**60] * 20, pa.float32())),
            ["pvolume: expected integer, found float"],
        ),
        (lambda t: swap(t, "lastPrice", pa.array(["x"] * 20)), ["lastPrice: expected number, found string"]),
        (
            lambda t: swap(t, "amount", pa.nulls(20, pa.float64())),
            ["amount: expected number, found no value in 20 rows"],
        ),
        (lambda t: swap(t, "symbol", pa.array([None] + ["600519.SH"] * 19)), ["symbol: 1 of 20 values are missing"]),
        (lambda t: swap(t, "time", pa.array([None] + [T0] * 19)), ["time: 1 of 20 values are missing"]),
        (lambda t: swap(t, "time", t["time"].cast(pa.timestamp("ms"))), ["epoch ms, found timestamp[ms]", "zone"]),
        (lambda t: swap(t, "symbol", pa.array(["600519"] * 20)), ["codes like 000001.SZ, found ['600519']"]),
        (lambda t: swap(t, "time", pa.array([1_654_046_100] * 20)), ["epoch milliseconds", "1654046100"]),
        (lambda t: t.append_column("bidVol", pa.array([1] * 20)), ["bidVol: expected list of integers, found int64"]),
        (lambda t: t.append_column("bidVol", pa.array([[1.5]] * 20)), ["bidVol: expected list of integers", "1.5"]),
        (lambda t: t.append_column("askPrice", pa.array(["[1, x]"] * 20)), ["askPrice: expected list of numbers", "x"]),
        (lambda t: t.append_column("high", t["high"]), ["columns that occur more than once: high"]),
        (lambda t: t.slice(0, 0), ["holds no rows"]),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_nothing_is_played(
    tmp_path: Path, change: Any, words: list[str]
) -> None:
    good = write(recording(20), tmp_path / "good.parquet")
    bad = write(change(recording(20)), tmp_path / "bad.parquet")
    with pytest.raises(RecordingError) as error:
        Simulation(Settings(feed="replay", replay_files=(good, bad)))
    assert f"  {bad}: " in str(error.value)
    assert str(good) not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_files_that_cannot_be_read_and_no_files_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"no parquet")
    with pytest.raises(RecordingError, match=r"broken\.parquet: cannot be read as Parquet"):
        load_recording([broken, tmp_path / "absent.csv"])
    chinese = tmp_path / "chinese.csv"
    chinese.write_bytes("symbol,名称\n000001.SZ,平安\n".encode("gbk"))
    with pytest.raises(RecordingError, match=r"chinese\.csv: cannot be read as CSV"):
        load_recording([chinese])
    with pytest.raises(RecordingError, match="QMT_REPLAY_FILES"):
        load_recording([])


def swap(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def test_a_push_never_holds_a_symbol_twice_and_breaks_cost_no_time(tmp_path: Path) -> None:
    table = load_recording([write(recording(300, days=3), tmp_path / "a.parquet")])
    source = ReplaySource(table)
    pushes = list(source.pushes(1 << 62))
    assert source.exhausted
    assert sum(len(p) for _, p in pushes) == 300
    assert len(pushes) < 300, "pushes gather symbols"
    assert source._play_ms[-1] - source.first_ms <= 300 * 10_000


@pytest.mark.data
def test_the_recordings_are_delivered_completely() -> None:
    folder = os.environ.get("QMT_RECORDINGS_DIR")
    if not folder:
        pytest.skip("no recordings: set QMT_RECORDINGS_DIR")
    paths = sorted(Path(folder).glob("ticks_*.parquet"))
    if not paths:
        pytest.skip(f"no ticks_*.parquet in {folder}")
    rows = sum(pq.ParquetFile(p).metadata.num_rows for p in paths)
    ticks = flat(replayed(*paths))
    assert len(ticks) == rows
    times = [t["time"] for _, t in ticks]
    assert times == sorted(times)
