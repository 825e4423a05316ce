"""One aggregator of other people over a Parquet file of ticks; runs in the environment that `benchmarks.peers` makes.

``python peers_worker.py NAME TICKS OUT``: reads TICKS (symbol, time in epoch ms, lastPrice, high, low, amount, volume
in shares, in the order of time), writes OUT (symbol, frame as epoch ms of the end label, open, high, low, close, vol)
and prints one JSON line: wall and processor seconds of the aggregation alone, largest resident memory in MB.

Each peer is used as its own documentation shows; nothing of it is changed to follow the rules of A-share bars.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Bars = list[tuple[str, int, float, float, float, float, int]]
MINUTE_MS = 60_000
DAY_NS = 86_400_000_000_000  # UTC days: a session in Shanghai lies within one
SHANGHAI = timezone(timedelta(hours=8))


def present_design(path: str) -> Callable[[], Bars]:
    """A JSON text per tick and one dictionary per symbol, as home-made scripts do."""
    texts = [json.dumps(row) for row in pq.read_table(path).to_pylist()]

    def run() -> Bars:
        bars: dict[tuple[str, int], list[float]] = {}
        before: dict[str, int] = {}
        for text in texts:
            tick = json.loads(text)
            if not tick["lastPrice"] or not tick["volume"]:
                continue
            symbol, price = tick["symbol"], tick["lastPrice"]
            key = (symbol, tick["time"] // MINUTE_MS * MINUTE_MS + MINUTE_MS)
            traded = tick["volume"] - before.get(symbol, 0)
            before[symbol] = tick["volume"]
            bar = bars.get(key)
            if bar is None:
                bars[key] = [price, price, price, price, traded]
            else:
                bar[1], bar[2], bar[3] = max(bar[1], price), min(bar[2], price), price
                bar[4] += traded
        return [(s, f, b[0], b[1], b[2], b[3], int(b[4])) for (s, f), b in bars.items()]

    return run


def vnpy(path: str) -> Callable[[], Bars]:
    """vn.py's BarGenerator, one per symbol."""
    from vnpy.trader.constant import Exchange
    from vnpy.trader.object import TickData
    from vnpy.trader.utility import BarGenerator

    ticks = [
        TickData(
            gateway_name="x", symbol=row["symbol"], exchange=Exchange.SSE,
            datetime=datetime.fromtimestamp(row["time"] / 1000, SHANGHAI), last_price=row["lastPrice"],
            high_price=row["high"], low_price=row["low"], volume=row["volume"], turnover=row["amount"],
        )
        for row in pq.read_table(path).to_pylist()
    ]  # fmt: skip

    def run() -> Bars:
        done: list[Any] = []
        generators: dict[str, Any] = {}
        for tick in ticks:
            generator = generators.get(tick.symbol)
            if generator is None:
                generator = generators[tick.symbol] = BarGenerator(done.append)
            generator.update_tick(tick)
        for generator in generators.values():
            generator.generate()
        return [
            (b.symbol, int(b.datetime.replace(second=0, microsecond=0).timestamp() * 1000) + MINUTE_MS,
             b.open_price, b.high_price, b.low_price, b.close_price, int(b.volume))
            for b in done
        ]  # fmt: skip

    return run


def nautilus(path: str) -> Callable[[], Bars]:
    """nautilus_trader's TimeBarAggregator over trade ticks: the price and the growth of volume of each snapshot."""
    from nautilus_trader.common.component import TestClock
    from nautilus_trader.data.aggregation import TimeBarAggregator
    from nautilus_trader.model.data import BarType, TradeTick
    from nautilus_trader.model.enums import AggressorSide
    from nautilus_trader.model.identifiers import InstrumentId, Symbol, TradeId
    from nautilus_trader.model.instruments import Equity
    from nautilus_trader.model.objects import Currency, Price, Quantity

    before: dict[str, int] = {}
    instruments: dict[str, Any] = {}
    ticks = []
    for row in pq.read_table(path).to_pylist():
        name, growth = row["symbol"], row["volume"] - before.get(row["symbol"], 0)
        before[name] = row["volume"]
        if not row["lastPrice"] or growth <= 0:
            continue
        if name not in instruments:
            instruments[name] = Equity(
                instrument_id=InstrumentId.from_str(f"{name.replace('.', '-')}.X"), raw_symbol=Symbol(name),
                currency=Currency.from_str("CNY"), price_precision=3, price_increment=Price.from_str("0.001"),
                lot_size=Quantity.from_int(1), ts_event=0, ts_init=0,
            )  # fmt: skip
        ns = row["time"] * 1_000_000
        ticks.append(
            (name, TradeTick(instruments[name].id, Price(row["lastPrice"], 3), Quantity.from_int(growth),
                             AggressorSide.NO_AGGRESSOR, TradeId("1"), ns, ns))
        )  # fmt: skip

    def run() -> Bars:
        done: list[Any] = []
        made: dict[tuple[str, int], Any] = {}  # by symbol and day: a clock would count every minute between two days
        for name, tick in ticks:
            day = tick.ts_event // DAY_NS
            pair = made.get((name, day))
            if pair is None:
                clock = TestClock()
                clock.set_time(tick.ts_event)
                bar_type = BarType.from_str(f"{instruments[name].id}-1-MINUTE-LAST-INTERNAL")
                aggregator = TimeBarAggregator(
                    instruments[name], bar_type, lambda bar, name=name: done.append((name, bar)), clock,
                    interval_type="right-open",
                )  # fmt: skip
                pair = made[name, day] = (clock, aggregator)
            for handler in pair[0].advance_time(tick.ts_event):
                handler.handle()
            pair[1].handle_trade_tick(tick)
        for clock, _ in made.values():
            for handler in clock.advance_time(clock.timestamp_ns() + 60_000_000_000):
                handler.handle()
        return [
            (
                name,
                b.ts_event // 1_000_000 + MINUTE_MS,
                float(b.open),
                float(b.high),
                float(b.low),
                float(b.close),
                int(b.volume),
            )
            for name, b in done
            if float(b.volume)
        ]

    return run


GROUP_BY = """
SELECT symbol, frame, arg_min(price, moment) AS open, max(price) AS high, min(price) AS low,
       arg_max(price, moment) AS close,
       max(volume) - coalesce(lag(max(volume)) OVER (PARTITION BY symbol ORDER BY frame), 0) AS vol
FROM (SELECT symbol, (time // 60000 + 1) * 60000 AS frame, lastPrice AS price, (time, volume) AS moment, volume
      FROM ticks WHERE lastPrice > 0 AND volume > 0)
GROUP BY symbol, frame
"""


def duckdb(path: str) -> Callable[[], Bars]:
    """A plain GROUP BY of symbol and minute in DuckDB."""
    import duckdb

    ticks = pq.read_table(path)
    connection = duckdb.connect()
    connection.register("source", ticks)
    connection.execute("CREATE TABLE ticks AS SELECT * FROM source")
    return lambda: connection.execute(GROUP_BY).fetchall()


def polars(path: str) -> Callable[[], Bars]:
    """The same in Polars."""
    import polars as pl

    ticks = pl.read_parquet(path)

    def run() -> Bars:
        frame = ((pl.col("time") // MINUTE_MS + 1) * MINUTE_MS).alias("frame")
        price = pl.col("lastPrice")
        rows = (
            ticks.lazy()
            .filter((price > 0) & (pl.col("volume") > 0))
            .group_by("symbol", frame, maintain_order=True)
            .agg(price.first().alias("open"), price.max().alias("high"), price.min().alias("low"),
                 price.last().alias("close"), pl.col("volume").max().alias("reached"))
            .sort("symbol", "frame")
            .with_columns((pl.col("reached") - pl.col("reached").shift(1).over("symbol").fill_null(0)).alias("vol"))
            .select("symbol", "frame", "open", "high", "low", "close", "vol")
        )  # fmt: skip
        return rows.collect().rows()

    return run


PEERS = {"present": present_design, "vnpy": vnpy, "nautilus": nautilus, "duckdb": duckdb, "polars": polars}


def main(name: str, ticks: str, out: str) -> None:
    """Prepare, aggregate once, write the bars and print the figures."""
    run = PEERS[name](ticks)
    wall, cpu = time.perf_counter(), time.process_time()
    bars = run()
    figures = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    columns = list(zip(*bars, strict=True))
    names = ["symbol", "frame", "open", "high", "low", "close", "vol"]
    pq.write_table(pa.table(dict(zip(names, columns, strict=True))), out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**figures, "memory_mb": peak, "bars": len(bars)}))


if __name__ == "__main__":
    main(*sys.argv[1:4])
