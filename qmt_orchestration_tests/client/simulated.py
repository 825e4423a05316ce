"""A warehouse filled from the simulated market: QMT's own history, ticks of the last day, instruments, factors.

The day before the last has its minutes from QMT's history, the last day from ticks, by the rule of bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from qmt_orchestration.feed.payload import to_columns
from qmt_orchestration.market.calendar import trading_days
from qmt_orchestration.market.instruments import instrument_of
from qmt_orchestration.market.quality import shares_of
from qmt_orchestration.market.schema import TICK_SCHEMA
from qmt_orchestration.market.sessions import at, to_ms
from qmt_orchestration.market.symbols import board_of
from qmt_orchestration.settings import Settings
from qmt_orchestration.simulator.history import SimulatedHistory, qmt_bars
from qmt_orchestration.simulator.market import MarketDay
from qmt_orchestration.simulator.reference import dividends, instrument
from qmt_orchestration.simulator.source import MarketSource
from qmt_orchestration.simulator.universe import universe
from qmt_orchestration.warehouse import bars

FACTORS = ("interest", "stockBonus", "stockGift", "allotNum", "allotPrice", "dr")


def fill(
    client: Any, settings: Settings, symbols: Sequence[str], first: date, day: date, *, since: str = "00:00"
) -> None:
    """Daily bars of [first, day], minutes of the day before *day* and of *day*, ticks of *day* from *since* on.

    Without the whole day's ticks QMT's history repairs the minutes of *day*, as after an outage.
    """
    seed, days = settings.sim_seed, trading_days(first, day)
    before = days[-2]
    insert_daily(client, seed, symbols, days)
    insert_history(client, seed, symbols, before)
    client.insert_arrow("ticks", ticks(settings, symbols, day, since))
    bars.finalize(client, day)
    if since != "00:00":
        insert_history(client, seed, symbols, day)
    for made in (before, day):
        for period in ("5m", "30m"):
            bars.roll_up(client, made, period, day_over=True)
        insert_instruments(client, settings, made)
    insert_factors(client, seed, symbols, day)


def ticks(settings: Settings, symbols: Sequence[str], day: date, since: str) -> pa.Table:
    """The market's ticks of *day* from *since* to 15:40 as TICK_SCHEMA."""
    hours, minutes = (int(part) for part in since.split(":"))
    source = MarketSource(settings, tuple(sorted(symbols)))
    source.seek(to_ms(at(day, hours * 60 + minutes)))
    rows = [(code, tick) for _, push in source.pushes(to_ms(at(day, 15 * 60 + 40))) for code, tick in push.items()]
    columns, kept, failed = to_columns([tick for _, tick in rows])
    assert not failed
    volume, pvolume = (np.asarray(columns[name]) for name in ("volume", "pvolume"))
    lot = np.array([instrument_of(rows[k][0]).lot_size for k in kept])
    ours = {
        "symbol": pa.array([rows[k][0] for k in kept]),
        "time": columns["time"].cast(TICK_SCHEMA.field("time").type),
        "total_volume": pa.array(shares_of(volume, pvolume, lot)[0]),
        "received_at": columns["time"].cast(TICK_SCHEMA.field("time").type),
        "session": pa.array(["simulated"] * len(kept)),
        "quality_score": pa.array(np.ones(len(kept), np.float32)),
    }
    zero = pa.array(np.zeros(len(kept), np.int64))
    arrays = [{**columns, **ours}.get(field.name, zero).cast(field.type) for field in TICK_SCHEMA]
    return pa.table(arrays, schema=TICK_SCHEMA)


def insert_history(client: Any, seed: int, symbols: Sequence[str], day: date) -> None:
    """QMT's minutes of *day*, taken over where there are no ticks."""
    history, text = SimulatedHistory(seed), f"{day:%Y%m%d}"
    rows = []
    for code, _, columns in history.bars(
        list(symbols), "1m", text, text, -1, now_ms=to_ms(at(day, 1439)), fill=False, everything=True
    ):
        lots = columns["volume"] * 100
        for i in range(len(lots)):
            if not columns["suspendFlag"][i]:
                prices = [float(columns[name][i]) for name in ("open", "high", "low", "close")]
                rows.append(
                    ["1m", code, int(columns["time"][i]) // 1000, *prices, int(lots[i]), float(columns["amount"][i])]
                )
    client.insert(
        "qmt_bars", rows, column_names=["period", "symbol", "frame", "open", "high", "low", "close", "vol", "amount"]
    )
    bars.fill_from_history(client, day)


def insert_daily(client: Any, seed: int, symbols: Sequence[str], days: Sequence[date]) -> None:
    """QMT's daily bars as rows of bars_1d."""
    names = ["symbol", "frame", "open", "high", "low", "close", "vol", "amount", "source", "ticks",
             "quality_score", "version", "pre_close", "after_hours_vol", "after_hours_amount", "suspended"]  # fmt: skip
    rows = []
    for day in days:
        found = qmt_bars(MarketDay(seed, day, tuple(symbols)), "1d")
        for n, code in enumerate(symbols):
            prices = [float(found[name][n, 0]) for name in ("open", "high", "low", "close")]
            pre, halted = float(found["preClose"][n, 0]), int(found["suspendFlag"][n, 0])
            vol, amount = int(found["volume"][n, 0]) * 100, float(found["amount"][n, 0])
            rows.append([code, at(day, 900), *prices, vol, amount, "history", 0, 1.0, 1, pre, 0, 0.0, halted])
    client.insert("bars_1d", rows, column_names=names)


def insert_instruments(client: Any, settings: Settings, day: date) -> None:
    """The list of every share of the simulated market."""
    rows = []
    for code in universe(settings.sim_symbols).shares:
        detail, board = instrument(settings.sim_seed, day, code, None), board_of(code)
        limits = [detail["PreClose"], detail["UpStopPrice"], detail["DownStopPrice"]]
        rows.append(
            [day, code, detail["InstrumentName"], board.value if board else "", *limits, detail["InstrumentStatus"], 1]
        )
    names = ["day", "symbol", "name", "board", "pre_close", "up_stop", "down_stop", "suspended", "listed"]
    client.insert("instruments", rows, column_names=names)


def insert_factors(client: Any, seed: int, symbols: Sequence[str], today: date) -> None:
    """Dividend events of the last year."""
    rows = []
    for code in symbols:
        for text, event in dividends(seed, code, "", "", today).items():
            ex_date = date(int(text[:4]), int(text[4:6]), int(text[6:]))
            rows.append([code, ex_date, *(event[name] for name in FACTORS)])
    names = ["symbol", "ex_date", "interest", "stock_bonus", "stock_gift", "allot_num", "allot_price", "dr"]
    client.insert("adjust_factors", rows, column_names=names)
