"""Symbols as people write them, to the form of this system: ``sh600519``, ``600519.XSHG``, ``600519`` → ``600519.SH``.

A code without its exchange is accepted where only one exchange uses its number range (600519), and refused with the
candidates where several do (000001 is Ping An Bank in Shenzhen and the Composite Index in Shanghai). Ranges:
`market.instruments`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Final

from qmt_orchestration.client.errors import AmbiguousSymbol, BadSymbol
from qmt_orchestration.market.instruments import Kind, instrument_of

MARKETS: Final = ("SH", "SZ", "BJ")
_EXCHANGES: Final = {
    "SH": "SH", "XSHG": "SH", "SS": "SH", "SSE": "SH",
    "SZ": "SZ", "XSHE": "SZ", "SZSE": "SZ",
    "BJ": "BJ", "XBSE": "BJ", "BSE": "BJ",
}  # fmt: skip
_BEHIND: Final = re.compile(r"(\d{6})\.?([A-Z]{2,4})")
_BEFORE: Final = re.compile(r"([A-Z]{2,4})\.?(\d{6})")
_CODE: Final = re.compile(r"\d{6}")


def lot_size_of(symbol: str) -> int:
    """Units per 手 (lot) of a symbol, by its code."""
    return instrument_of(symbol).lot_size


def normalize(text: str) -> str:
    """The symbol that *text* means, like ``600519.SH``. Raises `BadSymbol`, `AmbiguousSymbol`."""
    if not isinstance(text, str):
        raise BadSymbol(f"expected a symbol as text like '600519.SH', found {text!r:.40} ({type(text).__name__})")
    bare = text.strip().upper()
    if match := _BEHIND.fullmatch(bare):
        code, exchange = match.groups()
    elif match := _BEFORE.fullmatch(bare):
        exchange, code = match.groups()
    elif _CODE.fullmatch(bare) and bare.isascii():
        return _with_exchange(bare)
    else:
        raise BadSymbol(f"expected a symbol like 600519.SH, sh600519 or 600519, found {text!r:.40}")
    if exchange not in _EXCHANGES or not code.isascii():
        raise BadSymbol(f"expected one of the exchanges {', '.join(_EXCHANGES)}, found {exchange} in {text!r:.40}")
    return f"{code}.{_EXCHANGES[exchange]}"


def _with_exchange(code: str) -> str:
    candidates = candidates_of(code)
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise BadSymbol(f"no exchange has codes like {code}: write the exchange too, like 600519.SH")
    meanings = ", ".join(f"{symbol} ({instrument_of(symbol).kind.value})" for symbol in candidates)
    raise AmbiguousSymbol(f"{code} is a code of several exchanges: write {meanings}", candidates)


def candidates_of(code: str) -> list[str]:
    """The symbols that a code without its exchange may mean. Bonds have so many ranges that they count only where
    nothing else has the code."""
    found = [f"{code}.{market}" for market in MARKETS]
    found = [symbol for symbol in found if instrument_of(symbol).kind is not Kind.OTHER]
    return [symbol for symbol in found if instrument_of(symbol).kind is not Kind.BOND] or found


def normalize_all(symbols: str | Iterable[str]) -> list[str]:
    """`normalize` of one or several, each once, in the order given."""
    names = symbols if isinstance(symbols, Iterable) and not isinstance(symbols, str) else [symbols]
    return list(dict.fromkeys(normalize(name) for name in names))


def nearest(symbol: str, known: Sequence[str], count: int = 3) -> list[str]:
    """The *known* symbols most like *symbol*: the same code elsewhere first, then similar codes."""
    code = symbol.partition(".")[0]
    same = [other for other in known if other.startswith(code + ".")]
    similar = get_close_matches(symbol, known, n=count, cutoff=0.6)
    return list(dict.fromkeys([*same, *similar]))[:count]
