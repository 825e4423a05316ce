"""Every data-quality check once: its asset, name, SQL file, limits and severity. Specs and results are both made from
here.

A check's SQL (``warehouse/queries/checks/<sql>.sql``) returns one row ``measure, expected, found, worst``: how bad it
is (0 = perfect), what was expected and found in words, and the worst offenders as a JSON array of objects. The
measure passes up to ``allowed``; above it the check fails with severity WARN, above ``fatal`` with ERROR (None: never
ERROR). Limits are numbers, or names of settings where a deployment may want another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from qmt_orchestration.market.periods import minutes_of

# -- names, one word per thing across Dagster, ClickHouse and the docs
ROWS_PRESENT: Final = "rows_present"
NO_MISSING_FRAMES: Final = "no_missing_frames"
SYMBOLS_KEEP_TICKING: Final = "symbols_keep_ticking"
RECOMPUTED_EQUAL: Final = "recomputed_equal"
NO_DUPLICATE_KEYS: Final = "no_duplicate_keys"
OHLC_CONSISTENT: Final = "ohlc_consistent"
WITHIN_PRICE_LIMITS: Final = "within_price_limits"
SHARE_FILLED: Final = "share_filled"
VOLUME_ADDS_UP: Final = "volume_adds_up"
SEQUENCE_CONTINUOUS: Final = "sequence_continuous"
DELAY: Final = "delay"
NO_SILENCE: Final = "no_silence"
SHARE_REJECTED: Final = "share_rejected"
STORAGE: Final = "storage"
QMT_ROWS: Final = "qmt_rows_match"
QMT_VOLUME: Final = "qmt_volume_matches"
QMT_AMOUNT: Final = "qmt_amount_matches"
QMT_OHLC: Final = "qmt_ohlc_matches"
QMT_DAILY: Final = "qmt_daily_matches"
COUNT_AGAINST_YESTERDAY: Final = "count_against_yesterday"
LIMITS_KNOWN: Final = "limits_known"
KINDS_AGREE: Final = "kinds_agree"
CALENDAR_HORIZON: Final = "calendar_horizon"
FEED_FRESH: Final = "feed_fresh"
SERVICES_ALIVE: Final = "services_alive"
STREAM_LAG: Final = "stream_lag"
NO_DEAD_LETTERS: Final = "no_dead_letters"
NOTHING_LOST: Final = "nothing_lost"


@dataclass(frozen=True)
class Check:
    """One check of one asset; see the module for the meaning of the fields."""

    asset: str
    name: str
    description: str
    allowed: str | float = 0.0
    fatal: str | float | None = 0.0
    sql: str = ""  # empty: computed in Python (calendar, heartbeats)
    blocking: bool = False  # a failure of severity ERROR keeps the assets downstream from being made in the same run
    parameters: Mapping[str, str | int | float] = field(default_factory=dict)


_SYMBOLS: Final = ("quality_missing_symbols_warn", "quality_missing_symbols_error")
_QMT: Final = ("quality_qmt_mismatch_warn", "quality_qmt_mismatch_error")


def _of_bars(asset: str, *, base: str = "") -> tuple[Check, ...]:
    """The checks that every table of bars shares; *base* is the table its volumes must add up to."""
    table = {"table": asset}
    minutes = minutes_of(asset.removeprefix("bars_")) if base else 1
    present = "Every symbol that trades this day has bars."
    once = "No symbol and frame occurs twice with the same version (a newer version replaces an older one)."
    prices = "Prices are positive, low ≤ open, close ≤ high; volume and amount are not negative, and zero together."
    shared = (
        Check(asset, ROWS_PRESENT, present, *_SYMBOLS, "rows_present", parameters={**table, "minutes": minutes}),
        Check(asset, NO_DUPLICATE_KEYS, once, sql="no_duplicate_keys", blocking=True, parameters=table),
        Check(asset, OHLC_CONSISTENT, prices, sql="ohlc_consistent", parameters=table),
    )
    if not base:
        return shared
    equal = f"The {base.removeprefix('bars_')} bars inside each bar add up to it: volume, amount, high and low."
    windows = {} if asset == "bars_1d" else {"minutes": minutes}
    sql = "volume_adds_up" if windows else "daily_volume_adds_up"
    return (*shared, Check(asset, VOLUME_ADDS_UP, equal, sql=sql, parameters={**table, **windows}))


def _of(asset: str, *rows: tuple[str, str, str | float, str | float | None, str]) -> tuple[Check, ...]:
    """Checks from rows of name, description, allowed, fatal, sql."""
    return tuple(Check(asset, *row) for row in rows)


# fmt: off
CHECKS: Final[tuple[Check, ...]] = (
    *_of(
        "ticks",
        (ROWS_PRESENT, "Every listed and not suspended symbol sent ticks this day.", *_SYMBOLS, "ticks_present"),
        (SEQUENCE_CONTINUOUS, "The batch numbers of every feed session have no gap: the loss rate, exact.",
         0.0, "quality_loss_rate_error", "sequence_continuous"),
        (NO_DUPLICATE_KEYS, "No tick is stored twice.", 0.0, None, "ticks_duplicates"),
        (DELAY, "99 % of live ticks reach this system within the limit (exchange time to callback), in ms.",
         "quality_delay_p99_ms", None, "delay"),
        (NO_SILENCE, "The market was never silent for long inside the session: the longest pause in seconds.",
         "quality_silence_warn_seconds", "quality_silence_error_seconds", "no_silence"),
        (SHARE_REJECTED, "Few ticks were rejected at ingestion (they are in ticks_rejected with their reason).",
         "quality_rejected_share_warn", "quality_rejected_share_error", "share_rejected"),
        (STORAGE, "The disk has room (share in use), and no day is kept longer than its TTL.",
         "quality_disk_share_warn", "quality_disk_share_error", "storage"),
    ),
    *_of_bars("bars_1m"),
    *_of(
        "bars_1m",
        (NO_MISSING_FRAMES, "From its first trade on, each symbol has every minute of the calendar.",
         0.0, "quality_missing_frames_error", "no_missing_frames"),
        (RECOMPUTED_EQUAL, "The day computed once more from all its ticks gives the bars made minute by minute "
         "(differing ones are repaired).", 0.0, 0.0, "recomputed_equal"),
        (SYMBOLS_KEEP_TICKING, "Active symbols do not fall silent together: the largest share that did so in a minute "
         "(halts take few).", "quality_silent_symbols_warn", "quality_silent_symbols_error", "symbols_keep_ticking"),
        (WITHIN_PRICE_LIMITS, "No bar lies outside the day's price limits.", 0.0, None, "within_price_limits"),
        (SHARE_FILLED, "Few minutes had no trade (their bars repeat the last price and are marked as filled).",
         "quality_filled_share_warn", None, "share_filled"),
    ),
    *_of_bars("bars_5m", base="bars_1m"),
    *_of_bars("bars_30m", base="bars_1m"),
    *_of_bars("bars_1d", base="bars_1m"),
    *_of(
        "bars_1m",
        (QMT_ROWS, "Share of QMT's own minutes with trades that our bars lack.", 0.0, _QMT[1], "qmt_rows"),
        (QMT_VOLUME, "Share of minutes whose volume differs from QMT's by more than a lot.", *_QMT, "qmt_volume"),
        (QMT_AMOUNT, "Share of minutes whose amount differs from QMT's by more than rounding.", *_QMT, "qmt_amount"),
        (QMT_OHLC, "Share of minutes whose open, high, low or close differs from QMT's.", *_QMT, "qmt_ohlc"),
        (QMT_DAILY, "Share of symbols whose minutes do not add up to QMT's daily volume and extremes.",
         *_QMT, "qmt_daily"),
    ),
    *_of(
        "instruments",
        (COUNT_AGAINST_YESTERDAY, "The number of instruments is about that of the day before (share of change).",
         "quality_instruments_change_warn", "quality_instruments_change_error", "count_against_yesterday"),
        (LIMITS_KNOWN, "Every listed, not suspended instrument has the day's price limits and a previous close.",
         "quality_limits_unknown_warn", None, "limits_known"),
        (KINDS_AGREE, "The kind of every instrument (by its code) is what the terminal's own types and sectors say.",
         0.0, None, "kinds_agree"),
        (CALENDAR_HORIZON, "The exchange calendar has the coming trading days: how many are missing of those wanted.",
         0.0, "quality_calendar_missing_error", ""),
    ),
    *_of(
        "tick_stream",
        (FEED_FRESH, "Ticks flow while the market is in session: seconds since the newest one.",
         "quality_silence_warn_seconds", "quality_silence_error_seconds", ""),
        (SERVICES_ALIVE, "Every service that should run has a heartbeat: how many have not.", 0.0, 0.0, ""),
        (STREAM_LAG, "The writer keeps up: seconds it is behind the stream.",
         "quality_lag_seconds", "quality_lag_error_seconds", ""),
        (NO_DEAD_LETTERS, "No entry was given up: the number of dead letters.", 0.0, None, ""),
        (NOTHING_LOST, "The writer saw every batch number of every feed session: batches lost today.", 0.0, 0.0, ""),
    ),
)
# fmt: on

#: The checks that compare with QMT's own bars: a step of their own, because they need both tables finished.
RECONCILIATION: Final = (QMT_ROWS, QMT_VOLUME, QMT_AMOUNT, QMT_OHLC, QMT_DAILY)


def checks_of(asset: str) -> tuple[Check, ...]:
    """The checks computed together with *asset* (reconciliation stands apart). Every further table of N-minute bars
    has those of ``bars_5m``; weeks and months have none of their own, their daily bars have."""
    found = tuple(c for c in CHECKS if c.asset == asset and c.name not in RECONCILIATION)
    if not found and re.fullmatch(r"bars_\d+m", asset):
        return _of_bars(asset, base="bars_1m")
    return found


def reconciliation_checks() -> tuple[Check, ...]:
    """The checks of our minute bars against QMT's."""
    return tuple(c for c in CHECKS if c.name in RECONCILIATION)
