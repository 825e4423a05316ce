"""A source: another vendor's bars as Parquet files, ``<folder>/<period>/<day>.parquet`` (folder: SOURCE_OF_FILES).

Columns of a file: symbol, frame (end label, Asia/Shanghai), open, high, low, close, vol (shares), amount (yuan).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qmt_orchestration.market.schema import BAR_SCHEMA


class Files:
    """History of the periods that there are files of; no snapshots."""

    name = "files"
    periods = ("1m", "1d")

    def history(self, period: str, day: date, symbols: Sequence[str]) -> pa.Table:
        """The bars of the day's file; none where there is no file."""
        path = Path(os.environ["SOURCE_OF_FILES"]) / period / f"{day}.parquet"
        if not path.is_file():
            return BAR_SCHEMA.empty_table()
        found = pq.read_table(path, columns=BAR_SCHEMA.names).cast(BAR_SCHEMA)
        return found.filter(pc.is_in(found["symbol"], pa.array(symbols)))
