"""What the parts of `client.xtdata` share: the settings in use, fields, periods, and dicts that name what they lack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from qmt_orchestration.client.bar_queries import period_of
from qmt_orchestration.client.errors import BadSymbol, QueryError, UnknownField
from qmt_orchestration.client.symbols import MARKETS, normalize
from qmt_orchestration.market.periods import UnknownPeriod
from qmt_orchestration.market.symbols import is_symbol
from qmt_orchestration.settings import Settings, get_settings

PERIODS: Final = ("tick", "1m", "5m", "15m", "30m", "60m", "1h", "1d", "1w", "1mon")
#: Periods that the terminal has and the warehouse has not.
UNSERVED_PERIODS: Final = (
    "1q", "1hy", "1y", "l2quote", "l2order", "l2transaction", "l2quoteaux", "l2orderqueue", "l2thousand",
    "transactioncount1m", "transactioncount1d", "northfinancechange1m", "northfinancechange1d", "etfiopv",
)  # fmt: skip
#: Fields of a bar in the terminal's order and spelling, and those of them that the warehouse does not hold.
BAR_FIELDS: Final = (
    "time", "open", "high", "low", "close", "volume", "amount", "settelementPrice", "openInterest", "preClose",
    "suspendFlag",
)  # fmt: skip
UNSERVED_BAR_FIELDS: Final = ("settelementPrice", "openInterest")
#: Fields of a tick, likewise.
TICK_FIELDS: Final = (
    "time", "lastPrice", "open", "high", "low", "lastClose", "amount", "volume", "pvolume", "stockStatus", "openInt",
    "transactionNum", "lastSettlementPrice", "settlementPrice", "askPrice", "bidPrice", "askVol", "bidVol",
)  # fmt: skip
UNSERVED_TICK_FIELDS: Final = ("lastSettlementPrice", "settlementPrice", "pe", "volRatio", "speed1Min", "speed5Min")

_chosen: Settings | None = None


def use(settings: Settings | None) -> None:
    """Answer from the system of *settings* from now on; None: of the environment."""
    global _chosen
    _chosen = settings


def settings() -> Settings:
    """The settings in use."""
    return _chosen or get_settings()


class Partial(dict[str, Any]):
    """A dict as the terminal gives it, without the fields that are not stored: asking for one names it."""

    def __missing__(self, name: str) -> Any:
        raise NotImplementedError(f"the warehouse does not hold the field {name!r}; there are {', '.join(self)}")


def chosen_fields(fields: Sequence[str], known: Sequence[str], unserved: Sequence[str]) -> list[str]:
    """The fields asked for, in that order; all served ones for []. Raises `UnknownField`, NotImplementedError."""
    if not fields:
        return [name for name in known if name not in unserved]
    for name in fields:
        if name in unserved:
            raise NotImplementedError(f"the warehouse does not hold the field {name!r}")
        if name not in known:
            served = ", ".join(n for n in known if n not in unserved)
            raise UnknownField(f"expected fields of {served}, found {name!r}")
    return list(dict.fromkeys(fields))


def chosen_period(period: Any) -> str:
    """The period's name in this system, ``tick`` for ticks. Raises `UnknownPeriod`, NotImplementedError."""
    if period in UNSERVED_PERIODS or isinstance(period, tuple):
        raise NotImplementedError(f"the warehouse does not hold the period {period!r}; there are {', '.join(PERIODS)}")
    if period not in PERIODS:
        raise UnknownPeriod(f"expected a period of {', '.join(PERIODS)}, found {period!r:.40}")
    return "tick" if period == "tick" else period_of(str(period))


def chosen_codes(codes: str | Iterable[str]) -> list[str]:
    """Codes like 600000.SH, each once. Raises `BadSymbol`: another spelling would silently have no data."""
    found = _listed(codes)
    for code in found:
        if not isinstance(code, str) or not is_symbol(code):
            raise BadSymbol(f"expected codes like 600000.SH, found {code!r:.40}{_meant(code)}")
    return list(dict.fromkeys(found))


def one_code(code: str) -> str:
    """A single code. Raises `BadSymbol`."""
    found = chosen_codes(code)
    if len(found) != 1:
        raise BadSymbol(f"expected one code like 600000.SH, found {code!r:.60}")
    return found[0]


def codes_or_markets(codes: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
    """(codes, markets) of a list that may hold both."""
    found = _listed(codes)
    markets = frozenset(code for code in found if code in MARKETS)
    return frozenset(chosen_codes(code for code in found if code not in markets)), markets


def chosen_count(count: int) -> int:
    """-1 (all), 0 or more. Raises `QueryError`."""
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < -1:
        raise QueryError(f"expected a count of -1 (all), 0 or more, found {count!r:.40}")
    return int(count)


def check_callback(callback: Any) -> None:
    """Raises `QueryError` for what cannot be called."""
    if callback is not None and not callable(callback):
        raise QueryError(f"expected a function as callback, found {callback!r:.40}")


def _listed(codes: Any) -> list[Any]:
    if not isinstance(codes, Iterable):
        raise BadSymbol(f"expected codes like ['600000.SH'], found {codes!r:.40}")
    return [codes] if isinstance(codes, str) else list(codes)


def _meant(code: Any) -> str:
    try:
        return f": did you mean {normalize(code)}?"
    except ValueError:
        return ""
