"""What kinds of instruments differ in, in the simulated market: price points, units, amounts, order books.

Inside the market prices are integer **points** (cents for shares, a tenth of a cent for funds and bonds) and volumes
are units (shares, fund units, bonds, 100 yuan of a repo; of an index what the provider gives). The numbers of DOMAIN
are in `market.instruments`; here they become arrays over a tuple of symbols.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from qmt_orchestration.market.instruments import Kind, instrument_of
from qmt_orchestration.simulator.hashing import F64, I64, Bool

#: Sizes of the whole market by kind.
COUNTS: Final[dict[Kind, int]] = {
    Kind.STOCK: 5150,
    Kind.FUND: 1000,
    Kind.INDEX: 100,
    Kind.CONVERTIBLE: 350,
    Kind.REPO: 20,
}
#: Price of an index's unit of volume in its amounts: far from the index, so that nobody can divide one by the other.
_INDEX_AMOUNT: Final = 7.0


@dataclass(frozen=True)
class Traits:
    """Arrays over symbols. *scale*: points per yuan; *lot*: units per 手; *base*: typical price in yuan, 0 = a
    share's own; *size*: how much is traded, relative to a share; *plain*: no special days, no dividends, no limits."""

    scale: I64
    lot: I64
    base: F64
    size: F64
    index: Bool
    repo: Bool
    plain: Bool
    pays: Bool

    def yuan(self, amount: I64, volume: I64, rows: I64 | slice = slice(None)) -> F64:
        """Amounts in yuan of amounts in points × units: what is paid, which for an index and a repo is no price."""
        scale, index, repo = self.scale[rows], self.index[rows], self.repo[rows]
        if amount.ndim == 2:
            scale, index, repo = scale[:, None], index[:, None], repo[:, None]
        out = np.where(index, _INDEX_AMOUNT * amount / scale, amount / scale)
        return np.where(repo, 100.0 * volume, out)


@lru_cache(maxsize=16)
def traits(symbols: tuple[str, ...]) -> Traits:
    """The traits of *symbols*."""
    about = [instrument_of(s) for s in symbols]
    kinds = np.array([a.kind.value for a in about], dtype=object)
    repo, index = kinds == Kind.REPO.value, kinds == Kind.INDEX.value
    fund, bond = kinds == Kind.FUND.value, np.isin(kinds, (Kind.CONVERTIBLE.value, Kind.BOND.value))
    thousandths = fund | bond | np.array([a.kind is Kind.REPO and a.exchange == "SZ" for a in about])
    scale = np.where(repo & ~thousandths, 200, np.where(thousandths, 1000, 100))
    base = np.select([fund, bond, index, repo], [1.5, 115.0, 2500.0, 2.0], 0.0)
    size = np.select([bond, repo], [0.02, 2.0], 1.0)
    return Traits(
        scale=scale.astype(np.int64),
        lot=np.array([a.lot_size for a in about], np.int64),
        base=base,
        size=size,
        index=index.astype(np.bool_),
        repo=repo.astype(np.bool_),
        plain=(index | repo).astype(np.bool_),
        pays=(kinds == Kind.STOCK.value) | fund,
    )
