"""Sources and processors of other packages: what they must offer, how they are found, and how they are called.

A package names its objects (or classes without arguments) as entry points::

    [project.entry-points."qmt_orchestration.sources"]
    my_vendor = "my_package:MyVendor"
    [project.entry-points."qmt_orchestration.processors"]
    vwap = "my_package:Vwap"

Complete packages are in examples/. This module imports neither Dagster nor the warehouse.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

import pyarrow as pa

from qmt_orchestration.market.periods import minutes_of
from qmt_orchestration.market.schema import SchemaError, check_schema

log = logging.getLogger("plugins")

SOURCES: Final = "qmt_orchestration.sources"
PROCESSORS: Final = "qmt_orchestration.processors"
#: Types of a processor's columns, and of the columns of its table.
TYPES: Final[dict[pa.DataType, str]] = {
    pa.float64(): "Float64",
    pa.float32(): "Float32",
    pa.int64(): "Int64",
    pa.int32(): "Int32",
    pa.bool_(): "Bool",
    pa.string(): "String",
}
_NAME: Final = re.compile(r"^[a-z][a-z0-9_]{1,39}$")
#: Begins of names that tables of this system have.
_RESERVED: Final = (
    "bars", "ticks", "tick_", "qmt", "minute_bars", "instruments", "adjust_factors", "sector_members", "final_frames",
    "rolled_up", "quality", "schema_", "latest", "trading", "day_",
)  # fmt: skip
T = TypeVar("T")


@runtime_checkable
class Source(Protocol):
    """Another source of market data: history and, with a method ``snapshots``, ticks.

    *name*: of its tables, ``<name>_bars`` and ``<name>_ticks``. *periods*: of the bars it has (1m, 5m, 1d …).
    ``snapshots(day, symbols)`` gives the day's ticks as `market.schema.TICK_SCHEMA`.
    """

    name: str
    periods: Sequence[str]

    def history(self, period: str, day: date, symbols: Sequence[str]) -> pa.Table:
        """The bars of *day* as `market.schema.BAR_SCHEMA`: end labels, shares, yuan, not adjusted."""


@runtime_checkable
class Processor(Protocol):
    """Columns computed from bars, in a table of their own.

    *name*: of the asset and its table. *period*: of the bars it reads, ``1m``: of each minute that has closed,
    ``1d``: of each day. *schema*: its columns beside symbol and frame, of the types in `TYPES`.
    """

    name: str
    period: str
    schema: pa.Schema

    def process(self, bars: pa.Table) -> pa.Table:
        """Rows ``symbol, frame`` and the columns of *schema* for *bars*: the frames made, all columns."""


class PluginError(RuntimeError):
    """A plug-in cannot be used; the message names it, what was expected and what was found."""


@dataclass(frozen=True)
class Plugins:
    """What was found. *broken*: (entry point, why) of those that cannot be loaded."""

    sources: tuple[Source, ...] = ()
    processors: tuple[Processor, ...] = ()
    broken: tuple[tuple[str, str], ...] = field(default=())

    def of_period(self, periods: Sequence[str]) -> tuple[Processor, ...]:
        """Processors of bars of these periods."""
        return tuple(p for p in self.processors if p.period in periods)


def load(made: Sequence[str]) -> Plugins:
    """Every plug-in that is installed; *made*: periods of bars that exist. What cannot be loaded is named."""
    sources: list[Source] = []
    processors: list[Processor] = []
    broken = []
    for group in (SOURCES, PROCESSORS):
        for entry in sorted(entry_points(group=group), key=lambda e: e.name):
            try:
                found = _load(entry)
                _check_name(found, [*sources, *processors])
                if group == SOURCES:
                    sources.append(_source(found))
                else:
                    processors.append(_processor(found, made))
            except Exception as error:  # of a foreign package: whatever it raises is its own trouble
                why = f"{group} {entry.name} ({entry.value}): {type(error).__name__}: {error}"
                log.error("plug-in left out: %s", why)
                broken.append((entry.name, why))
    return Plugins(tuple(sources), tuple(processors), tuple(broken))


def _load(entry: EntryPoint) -> Any:
    found = entry.load()
    return found() if isinstance(found, type) else found


def _check_name(found: Any, others: Sequence[Any]) -> None:
    name = getattr(found, "name", None)
    if not isinstance(name, str) or not _NAME.match(name) or name.startswith(_RESERVED):
        raise PluginError(
            f"expected a name of small letters, digits and _ that no table of ours begins with, found {name!r}"
        )
    if name in {other.name for other in others}:
        raise PluginError(f"another plug-in has the name {name!r}")


def _source(found: Any) -> Source:
    if not isinstance(found, Source):
        raise PluginError(
            "expected name, periods and history(period, day, symbols): see qmt_orchestration.plugins.Source"
        )
    for period in found.periods:
        if period != "1m":
            minutes_of(period)
    if not found.periods:
        raise PluginError("expected at least one period, found none")
    return found


def _processor(found: Any, made: Sequence[str]) -> Processor:
    if not isinstance(found, Processor):
        raise PluginError("expected name, period, schema and process(bars): see qmt_orchestration.plugins.Processor")
    if found.period not in made:
        raise PluginError(f"expected a period of {', '.join(made)} (QMT_ROLLUP_PERIODS), found {found.period!r}")
    if not isinstance(found.schema, pa.Schema) or not found.schema.names:
        raise PluginError(f"expected schema to be a pyarrow schema with columns, found {found.schema!r:.100}")
    for column in found.schema:
        if column.type not in TYPES or not _NAME.match(column.name) or column.name in ("symbol", "frame", "version"):
            types = ", ".join(str(t) for t in TYPES)
            raise PluginError(
                f"expected columns of small letters, not symbol, frame or version, of the types {types}; found "
                f"{column.name}: {column.type}"
            )
    return found


def call(name: str, seconds: float, function: Callable[..., T], *arguments: Any) -> T:
    """What *function* of the plug-in *name* returns, within *seconds*. Raises `PluginError`.

    It runs in a thread of its own, which is left behind when it hangs and ends with the process.
    """
    done: list[T] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            done.append(function(*arguments))
        except BaseException as error:  # SystemExit too: it must not end the run
            raised.append(error)

    thread = threading.Thread(target=work, name=f"plugin-{name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise PluginError(f"plug-in {name}: no answer within {seconds:g} s (QMT_PLUGIN_SECONDS)")
    if raised:
        raise PluginError(f"plug-in {name} raised {type(raised[0]).__name__}: {raised[0]}") from raised[0]
    return done[0]


def checked(name: str, found: Any, schema: pa.Schema) -> pa.Table:
    """*found* if it is a table of *schema* without a key that stands twice. Raises `PluginError`."""
    if not isinstance(found, pa.Table):
        raise PluginError(f"plug-in {name}: expected a pyarrow.Table, found {type(found).__name__}")
    try:
        check_schema(found.schema.remove_metadata(), schema)
    except SchemaError as error:
        raise PluginError(f"plug-in {name}: {error}") from None
    empty = [column for column in schema.names if found.column(column).null_count]
    if empty:
        raise PluginError(f"plug-in {name}: expected no nulls, found some in {', '.join(empty)}")
    if "frame" in schema.names:
        twice = found.num_rows - found.select(["symbol", "frame"]).group_by(["symbol", "frame"]).aggregate([]).num_rows
        if twice:
            raise PluginError(f"plug-in {name}: expected each symbol and frame once, found {twice} rows more")
    return found
