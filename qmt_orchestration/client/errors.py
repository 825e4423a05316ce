"""What a query can be refused for. Each message says what was expected, what was found and what mends it."""

from __future__ import annotations

from collections.abc import Sequence


class QueryError(ValueError):
    """A query that cannot be answered as it is written."""


class BadSymbol(QueryError):
    """The text has none of the forms in which symbols are written."""


class AmbiguousSymbol(QueryError):
    """A code without its exchange that several exchanges use; *candidates* are the symbols it may mean."""

    def __init__(self, message: str, candidates: Sequence[str]) -> None:
        super().__init__(message)
        self.candidates = tuple(candidates)


class UnknownSymbol(QueryError):
    """A well-formed symbol of which the warehouse holds nothing; *nearest* are the most similar ones it holds."""

    def __init__(self, message: str, nearest: Sequence[str]) -> None:
        super().__init__(message)
        self.nearest = tuple(nearest)


class UnknownField(QueryError):
    """A field that does not exist."""


class UnknownAdjustment(QueryError):
    """The adjustment is none of `adjust.ADJUSTMENTS`."""


class UnknownSector(QueryError):
    """A sector whose members the warehouse does not hold."""


class UnknownMarket(QueryError):
    """The market is none of SH, SZ, BJ."""


class BadTime(QueryError):
    """A time in none of the accepted forms, or a day that does not exist."""


class BadRange(QueryError):
    """The range ends before it starts."""


class NoDataInRange(QueryError):
    """The warehouse holds nothing of this kind in the whole range; the message says which days it holds."""


class FutureRange(NoDataInRange):
    """The range begins after the market's present time."""


class HistoryMissing(QueryError):
    """Days of the range are not in the warehouse; the message names them and the command that fetches them."""


class WarehouseAway(ConnectionError):
    """No ClickHouse answers, or it holds no tables of ours; the message says what to start."""


class StreamAway(ConnectionError):
    """No Redis answers; the message says what to start."""
