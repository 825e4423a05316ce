"""Ticks as the terminal gives them: from batches of the stream, and the newest ones from ClickHouse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from qmt_orchestration.client.bar_queries import local_days
from qmt_orchestration.client.newest import FIELDS, newest_ticks
from qmt_orchestration.client.xtdata import _shared
from qmt_orchestration.client.xtdata._shared import Partial, codes_or_markets
from qmt_orchestration.market.schema import TickFlag
from qmt_orchestration.market.sessions import from_ms, to_ms

Tick = dict[str, Any]


def full_ticks(codes: list[str]) -> dict[str, Tick]:
    """`get_full_tick`."""
    named, markets = codes_or_markets(codes)
    settings = _shared.settings()
    found = newest_ticks(settings, []) if markets else []
    ticks = {code: tick for code, tick in found if code[-2:] in markets}
    if named:
        ticks.update(newest_ticks(settings, sorted(named - ticks.keys())))
    return {code: _tick(to_ms(tick[0]), dict(zip(FIELDS, tick, strict=True))) for code, tick in sorted(ticks.items())}


def _current(table: pa.Table) -> pa.Table:
    """The ticks without withdrawn ones."""
    withdrawn = pc.bit_wise_and(table.column("flags"), pa.scalar(int(TickFlag.WITHDRAWN), pa.uint32()))
    return table.filter(pc.equal(withdrawn, pa.scalar(0, pa.uint32())))


def pushes_of(table: pa.Table) -> Iterator[dict[str, Tick]]:
    """The ticks of a batch, without withdrawn ones, as pushes in which no code occurs twice."""
    table = _current(table)
    push: dict[str, Tick] = {}
    names = [name for name in FIELDS if name != "time"]
    times = table.column("time").cast(pa.int64()).to_pylist()
    columns = [table.column(name).to_pylist() for name in names]
    for code, moment, *values in zip(table.column("symbol").to_pylist(), times, *columns, strict=True):
        if code in push:
            yield push
            push = {}
        push[code] = _tick(moment, dict(zip(names, values, strict=True)))
    if push:
        yield push


def _tick(time_ms: int, values: dict[str, Any]) -> Tick:
    """A tick as the terminal gives it."""
    return Partial(
        time=time_ms,
        timetag=from_ms(time_ms).strftime("%Y%m%d %H:%M:%S"),
        **{
            name: list(value) if isinstance(value, (list, tuple)) else value
            for name, value in values.items()
            if name not in ("time", "total_volume")
        },
    )


def day_of(tick: Tick) -> dict[str, Any]:
    """The day's bar so far."""
    midnight = int(local_days(tick["time"])) * 86_400_000 - 8 * 3_600_000
    prices = {name: tick[name] for name in ("open", "high", "low", "volume", "amount")}
    return Partial(time=midnight, **prices, close=tick["lastPrice"], preClose=tick["lastClose"], suspendFlag=0)
