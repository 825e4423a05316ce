"""Symbols as people write them, to the form of this system: ``sh600519``, ``600519.XSHG``, ``600519`` → ``600519.SH``.

A code without its exchange is accepted where only one exchange uses its number range (600519), and refused with the
candidates where several do (000001 is Ping An Bank in Shenzhen and the Composite Index in Shanghai). Ranges: the type
table of the terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Final, Literal

from qmt_orchestration.client.errors import AmbiguousSymbol, BadSymbol

Kind = Literal["stock", "index", "etf", "fund", "bond", "repo"]

#: Number ranges by exchange; the longest prefix that fits decides.
PREFIXES: Final[dict[str, dict[Kind, tuple[str, ...]]]] = {
    "SH": {
        "stock": ("60", "688", "689", "90"),
        "index": ("000",),
        "etf": ("510", "511", "512", "513", "515", "516", "517", "518", "520", "530", "56", "588", "589"),
        "fund": ("50",),
        "bond": ("009", "010", "019", "020", "110", "111", "113", "118", "132", "137"),
        "repo": ("204",),
    },
    "SZ": {
        "stock": ("000", "001", "002", "003", "004", "30", "20"),
        "index": ("39", "98"),
        "etf": ("158", "159"),
        "fund": ("16", "180"),
        "bond": ("117", "12"),
        "repo": ("131",),
    },
    "BJ": {"stock": ("43", "83", "87", "88", "92"), "index": ("899",)},
}
MARKETS: Final = tuple(PREFIXES)
_EXCHANGES: Final = {
    "SH": "SH", "XSHG": "SH", "SS": "SH", "SSE": "SH",
    "SZ": "SZ", "XSHE": "SZ", "SZSE": "SZ",
    "BJ": "BJ", "XBSE": "BJ", "BSE": "BJ",
}  # fmt: skip
_BEHIND: Final = re.compile(r"(\d{6})\.?([A-Z]{2,4})")
_BEFORE: Final = re.compile(r"([A-Z]{2,4})\.?(\d{6})")
_CODE: Final = re.compile(r"\d{6}")


def kind_of(symbol: str) -> Kind | None:
    """What a symbol is by its number range; None when no range fits."""
    code, _, market = symbol.partition(".")
    found = [
        (len(prefix), kind)
        for kind, prefixes in PREFIXES.get(market, {}).items()
        for prefix in prefixes
        if code.startswith(prefix)
    ]
    return max(found)[1] if found else None


def lot_size_of(symbol: str) -> int:
    """Units per 手 (lot) of a symbol: 10 for bonds and repos, else 100."""
    return 10 if kind_of(symbol) in ("bond", "repo") else 100


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
    candidates = [f"{code}.{market}" for market in MARKETS if kind_of(f"{code}.{market}")]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise BadSymbol(f"no exchange has codes like {code}: write the exchange too, like 600519.SH")
    meanings = ", ".join(f"{symbol} ({kind_of(symbol)})" for symbol in candidates)
    raise AmbiguousSymbol(f"{code} is a code of several exchanges: write {meanings}", candidates)


def normalize_all(symbols: str | Iterable[str]) -> list[str]:
    """`normalize` of one or several, each once, in the order given."""
    names = [symbols] if isinstance(symbols, str) else symbols
    return list(dict.fromkeys(normalize(name) for name in names))


def nearest(symbol: str, known: Sequence[str], count: int = 3) -> list[str]:
    """The *known* symbols most like *symbol*: the same code elsewhere first, then similar codes."""
    code = symbol.partition(".")[0]
    same = [other for other in known if other.startswith(code + ".")]
    similar = get_close_matches(symbol, known, n=count, cutoff=0.6)
    return list(dict.fromkeys([*same, *similar]))[:count]
