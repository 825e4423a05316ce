"""Ticks as the terminal gives them: from batches of the stream, and the newest ones from ClickHouse."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from qmt_orchestration.client.bar_queries import local_days
from qmt_orchestration.client.newest import newest_ticks
from qmt_orchestration.client.xtdata import _shared
from qmt_orchestration.client.xtdata._shared import TICK_FIELDS, UNSERVED_TICK_FIELDS, Partial, codes_or_markets
from qmt_orchestration.market.schema import TickFlag
from qmt_orchestration.market.sessions import from_ms

Tick = dict[str, Any]
#: What a tick has besides its time.
FIELDS: Final = tuple(name for name in TICK_FIELDS if name not in ("time", *UNSERVED_TICK_FIELDS))


def full_ticks(codes: list[str]) -> dict[str, Tick]:
    """`get_full_tick`."""
    named, markets = codes_or_markets(codes)
    settings = _shared.settings()
    out: dict[str, Tick] = {}
    if markets:
        out = {code: tick for code, tick in _ticks_of(newest_ticks(settings, [], book=True)) if code[-2:] in markets}
    missing = sorted(named - out.keys())
    if missing:
        out.update(_ticks_of(newest_ticks(settings, missing, book=True)))
    return dict(sorted(out.items()))


def _current(table: pa.Table) -> pa.Table:
    """The ticks without withdrawn ones."""
    withdrawn = pc.bit_wise_and(table.column("flags"), pa.scalar(int(TickFlag.WITHDRAWN), pa.uint32()))
    return table.filter(pc.equal(withdrawn, pa.scalar(0, pa.uint32())))


def pushes_of(table: pa.Table) -> Iterator[dict[str, Tick]]:
    """The ticks of a batch, without withdrawn ones, as pushes in which no code occurs twice."""
    push: dict[str, Tick] = {}
    for code, tick in _ticks_of(_current(table)):
        if code in push:
            yield push
            push = {}
        push[code] = tick
    if push:
        yield push


def _ticks_of(table: pa.Table) -> Iterator[tuple[str, Tick]]:
    """(code, tick) of each row."""
    times = table.column("time").cast(pa.int64()).to_pylist()
    columns = [table.column(name).to_pylist() for name in FIELDS]
    for code, moment, *values in zip(table.column("symbol").to_pylist(), times, *columns, strict=True):
        yield code, _tick(moment, dict(zip(FIELDS, values, strict=True)))


def _tick(time_ms: int, values: dict[str, Any]) -> Tick:
    """A tick as the terminal gives it."""
    return Partial(time=time_ms, timetag=_timetag(time_ms // 1000), **values)


@lru_cache(maxsize=1024)
def _timetag(seconds: int) -> str:
    return from_ms(seconds * 1000).strftime("%Y%m%d %H:%M:%S")


def day_of(tick: Tick) -> dict[str, Any]:
    """The day's bar so far."""
    midnight = int(local_days(tick["time"])) * 86_400_000 - 8 * 3_600_000
    prices = {name: tick[name] for name in ("open", "high", "low", "volume", "amount")}
    return Partial(time=midnight, **prices, close=tick["lastPrice"], preClose=tick["lastClose"], suspendFlag=0)
