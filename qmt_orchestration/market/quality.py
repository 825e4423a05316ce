"""Quality rules of a tick: why one is rejected, what is only flagged, and the score in [0, 1].

**Rejected** (`Reason`): never published as a tick, kept with reason and payload in ``ticks_rejected``. **Flagged**
(`TickFlag`): published, with a lower score. The formula is::

    quality_score = max(0, 1 − Σ penalty of each flag set)

with `PENALTIES` below; a clean tick scores 1. BASELINE and SNAPSHOT say how a tick came, not how good it is, and cost
nothing. All functions are vectorised over numpy arrays and keep no state; what needs memory (falling cumulatives,
duplicates, jumps) is in ``feed.checks`` and ``feed.doubts``.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qmt_orchestration.market.schema import TickFlag

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

DAY_MS: Final = 86_400_000
SHANGHAI_OFFSET_MS: Final = 8 * 3_600_000  # China has had no daylight saving time since 1991
EARLIEST_MS: Final = 631_123_200_000  # 1990-01-01: before it no exchange existed
LATEST_MS: Final = 4_102_416_000_000  # 2100-01-01: seconds or microseconds instead of milliseconds show here

SHARES_PER_LOT: Final = 100
SKEW_TOLERANCE_MS: Final = 3_000  # one snapshot interval
AMOUNT_SLACK_YUAN: Final = 200.0  # amounts come rounded to 100 yuan, from either end of a difference
UNIT_SHARE: Final = 0.02  # further outside the day's range a tick is rejected: a wrong factor or unit, no rounding
JUMP_SHARE: Final = 1e-3  # of the cumulative amount: a smaller jump shows when the next snapshot falls behind it
MAX_VOLUME: Final = 1 << 37  # no instrument trades so many units a day; more is a fault of the feed
FIRST_TRADE_MINUTE: Final = 565  # 09:25: the opening call has matched; nothing trades before it


class Reason(str, Enum):
    """Why a tick was rejected. Codes outside the universe are no ticks of ours: they are only counted ("filtered")."""

    BAD_PAYLOAD = "bad_payload"  # neither a mapping of fields nor a row of seven numbers
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    NOT_FINITE = "not_finite"
    NEGATIVE = "negative"
    ZERO_PRICE = "zero_price"  # traded (volume > 0), yet no last price
    BAD_TIME = "bad_time"  # no epoch milliseconds, no trading day, or far in the future
    OTHER_DAY = "other_day"  # of an earlier day: the last session, replayed at log-in
    BACKWARD_TIME = "backward_time"
    BACKWARD_VOLUME = "backward_volume"
    BACKWARD_AMOUNT = "backward_amount"
    DUPLICATE = "duplicate"  # same time and cumulative values as one before
    VOLUME_TOO_LARGE = "volume_too_large"  # MAX_VOLUME units or more
    PRICE_OUTSIDE_DAY = "price_outside_day"  # lastPrice or open outside the snapshot's own [low, high]
    BEYOND_LIMITS = "beyond_limits"  # a price, day high or day low that the day's limits exclude
    AMOUNT_CONTRADICTS = "amount_contradicts"  # amount / volume outside the day's [low, high]
    JUMP = "jump"  # since the snapshot before: an amount that no price of the day explains
    BACKWARD_RANGE = "backward_range"  # the day's high fell, or its low rose
    PRE_CLOSE_CHANGED = "pre_close_changed"  # another previous close than before
    WITHDRAWN = "withdrawn"  # was accepted; later snapshots proved it wrong


#: Codes of `Reason` in arrays; 0 = accepted.
REASONS: Final[tuple[Reason, ...]] = tuple(Reason)
CODE: Final[dict[Reason, int]] = {reason: i + 1 for i, reason in enumerate(REASONS)}

PENALTIES: Final[dict[TickFlag, float]] = {
    TickFlag.OUTSIDE_LIMITS: 0.5,
    TickFlag.UNIT_MISMATCH: 0.3,
    TickFlag.OUTSIDE_SESSION: 0.2,
    TickFlag.CLOCK_SKEW: 0.2,
    TickFlag.LOTS_GUARD: 0.1,
    TickFlag.CARRIED: 0.1,
}


def _score_table() -> npt.NDArray[np.float32]:
    table = np.zeros(1 << len(TickFlag), dtype=np.float32)
    for bits in range(len(table)):
        table[bits] = max(0.0, 1.0 - sum(p for flag, p in PENALTIES.items() if bits & flag))
    return table


_SCORES: Final = _score_table()
_MINUTES: Final = np.arange(1440)
_OUTSIDE_SESSION: Final[Bools] = ~(((_MINUTES >= 555) & (_MINUTES <= 690)) | ((_MINUTES >= 779) & (_MINUTES <= 930)))


def quality_score(flags: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    """Score of each tick in [0, 1] from its flags (`TickFlag` bits), by the formula of this module."""
    return _SCORES[flags]


def local_day(time_ms: Ints) -> Ints:
    """Days since 1970-01-01 in Shanghai of epoch milliseconds."""
    return (time_ms + SHANGHAI_OFFSET_MS) // DAY_MS


def minute_of_day(time_ms: Ints) -> Ints:
    """Minutes since midnight in Shanghai of epoch milliseconds."""
    return (time_ms + SHANGHAI_OFFSET_MS) % DAY_MS // 60_000


def value_reasons(columns: dict[str, Any], out: npt.NDArray[np.uint8]) -> None:
    """Mark in *out* what a single tick shows by itself: not finite, negative, no price, impossible time.

    *columns*: time (epoch ms), lastPrice, open, high, low, lastClose, amount, volume (lots), pvolume (shares).
    The first reason found stays.
    """
    floats = [columns[name] for name in ("lastPrice", "open", "high", "low", "lastClose", "amount")]
    total = floats[0] + floats[1] + floats[2] + floats[3] + floats[4] + floats[5]
    if not np.isfinite(total).all():  # one pass for the ordinary case; a sum is finite unless a term is not
        finite = np.logical_and.reduce([np.isfinite(column) for column in floats])
        _mark(out, ~finite, Reason.NOT_FINITE)
    integers = (columns["volume"], columns["pvolume"])
    _mark(out, np.maximum(*integers) >= MAX_VOLUME, Reason.VOLUME_TOO_LARGE)
    negative = np.logical_or.reduce([column < 0 for column in (*floats, *integers)])
    _mark(out, negative, Reason.NEGATIVE)
    _mark(out, (columns["lastPrice"] == 0) & ((columns["volume"] > 0) | (columns["pvolume"] > 0)), Reason.ZERO_PRICE)
    _mark(out, (columns["time"] < EARLIEST_MS) | (columns["time"] >= LATEST_MS), Reason.BAD_TIME)


def _mark(out: npt.NDArray[np.uint8], where: Bools, reason: Reason) -> None:
    if where.any():
        out[where & (out == 0)] = CODE[reason]


def shares_of(volume_lots: Ints, pvolume: Ints, lot: Ints | int = SHARES_PER_LOT) -> tuple[Ints, Bools]:
    """Cumulative volume in units (*lot*: units per 手), and where ``volume`` and ``pvolume`` disagree.

    There the lots decide, because ``pvolume`` is 0 in old builds and lots for some products; unless the lots are 0.
    """
    from_lots = volume_lots * lot
    above = pvolume - from_lots
    if above.min(initial=0) >= 0 and (above < lot).all():  # nearly always: lots are whole
        return pvolume.copy(), np.zeros(len(pvolume), np.bool_)
    guarded = (np.abs(above) > lot) | ((pvolume <= volume_lots) & (pvolume != from_lots))
    return np.where(guarded & (volume_lots > 0), from_lots, pvolume), guarded


def unit_mismatch(
    amount: Floats, units: Ints, high: Floats, low: Floats, slack_units: Ints, *, share: float = 0.0
) -> Bools:
    """Where the average price (yuan per unit) leaves the day's [low, high].

    Allowed for: amounts rounded to 100 yuan, half a tick, *slack_units* (one lot where units come from lots), and
    *share* of the amount.
    """
    slack = 100.0 + 0.005 * units + slack_units * high + share * high * units
    outside = (amount < low * units - slack) | (amount > high * units + slack)
    return outside & (low > 0)


def is_outside(first: int, last: int) -> bool:
    """Whether any of these minutes of a day lies outside the session."""
    return bool(_OUTSIDE_SESSION[first : last + 1].any())


def outside_session(time_ms: Ints) -> Bools:
    """Where the time lies outside 09:15–11:30, 13:00–15:30 (a minute of tolerance at the ends)."""
    return _OUTSIDE_SESSION[minute_of_day(time_ms)]
