"""Rules that cut the market into shards: by hash, market, board or list. All members of a group share one rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from qmt_orchestration.market.symbols import Board, board_of
from qmt_orchestration.stream.keys import shard_of


@dataclass(frozen=True)
class ShardRule:
    """*spec* names the rule (members compare it), *labels* are the shards, *of* gives a symbol's label.

    ``None`` from *of* means that no member of the group wants the symbol.
    """

    spec: str
    labels: tuple[str, ...]
    of: Callable[[str], str | None] = field(compare=False)


def by_hash(shards: int = 8) -> ShardRule:
    """Equal shares: crc32(symbol) % *shards*, the same in every language. Use more shards than members."""
    if not 1 <= shards <= 256:
        raise ValueError(f"expected 1 to 256 shards, found {shards}")
    labels = tuple(str(i) for i in range(shards))
    return ShardRule(f"hash:{shards}", labels, lambda symbol: labels[shard_of(symbol, shards)])


def by_market() -> ShardRule:
    """One shard per exchange: SH, SZ, BJ, and ``other``."""
    known = ("SH", "SZ", "BJ")
    return ShardRule("market", (*known, "other"), lambda symbol: symbol[-2:] if symbol[-2:] in known else "other")


def by_board() -> ShardRule:
    """One shard per board (sh_main, star, sz_main, chinext, bse), and ``other``."""

    def label(symbol: str) -> str:
        board = board_of(symbol)
        return board.value if board else "other"

    return ShardRule("board", (*(board.value for board in Board), "other"), label)


def by_list(lists: Mapping[str, Sequence[str]], *, rest: str | None = "rest") -> ShardRule:
    """One shard per named list of symbols, and one for the *rest* (None: the group does not want it)."""
    owner: dict[str, str] = {}
    for name, symbols in lists.items():
        if not name or not all(ch.isalnum() or ch in "_-." for ch in name):  # it becomes part of keys and group names
            raise ValueError(f"expected as name of a list letters, digits, '_', '-' or '.', found {name!r}")
        for symbol in symbols:
            if symbol in owner:
                raise ValueError(f"{symbol} is in two lists, {owner[symbol]} and {name}: a shard has one owner")
            owner[symbol] = name
    if rest is not None and rest in lists:
        raise ValueError(f"a list is called {rest!r}, as the shard of the rest: name one of them differently")
    digest = sha256(repr(sorted(owner.items())).encode()).hexdigest()[:12]
    labels = (*lists, rest) if rest is not None else tuple(lists)
    return ShardRule(f"list:{digest}:{rest}", labels, lambda symbol: owner.get(symbol, rest))
