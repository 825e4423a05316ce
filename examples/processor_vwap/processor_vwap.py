"""A processor: the volume-weighted average price of each minute, and of the day up to it, in the table ``vwap``."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


class Vwap:
    """Made in the run that makes the minutes: ``SELECT * FROM vwap FINAL WHERE symbol = '600519.SH'``."""

    name = "vwap"
    period = "1m"
    schema = pa.schema([("vwap", pa.float64()), ("day_vwap", pa.float64())])

    def process(self, bars: pa.Table) -> pa.Table:
        """Amount ÷ volume; the close where nothing was traded."""

        def price(amount: str, volume: str) -> pa.ChunkedArray:
            units = bars[volume].cast(pa.float64())
            traded = pc.greater(units, 0)
            paid = pc.divide(bars[amount], pc.if_else(traded, units, 1.0))
            return pc.if_else(traded, paid, bars["close"])

        columns = {
            "symbol": bars["symbol"],
            "frame": bars["frame"],
            "vwap": price("amount", "vol"),
            "day_vwap": price("cum_amount", "cum_volume"),
        }
        return pa.table(columns)
