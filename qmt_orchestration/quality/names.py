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
    sql: str = ""  # empty: computed in Python (calendar, heartbeats)
    allowed: str | float = 0.0
    fatal: str | float | None = 0.0
    blocking: bool = False  # a failure of severity ERROR keeps the assets downstream from being made in the same run
    parameters: Mapping[str, str | int | float] = field(default_factory=dict)


def _of_bars(asset: str, *, base: str = "") -> tuple[Check, ...]:
    """The checks that every table of bars shares; *base* is the table its volumes must add up to."""
    table = {"table": asset}
    minutes = minutes_of(asset.removeprefix("bars_")) if base else 1
    shared = (
        Check(
            asset,
            ROWS_PRESENT,
            "Every symbol that trades this day has bars.",
            "rows_present",
            "quality_missing_symbols_warn",
            "quality_missing_symbols_error",
            parameters={**table, "minutes": minutes},
        ),
        Check(
            asset,
            NO_DUPLICATE_KEYS,
            "No symbol and frame stands twice with the same version (a newer version replaces an older one).",
            "no_duplicate_keys",
            blocking=True,
            parameters=table,
        ),
        Check(
            asset,
            OHLC_CONSISTENT,
            "Prices are positive, low ≤ open, close ≤ high; volume and amount are not negative, and zero together.",
            "ohlc_consistent",
            parameters=table,
        ),
    )
    if not base:
        return shared
    conserved = Check(
        asset,
        VOLUME_ADDS_UP,
        f"The {base.removeprefix('bars_')} bars inside each bar add up to it: volume, amount, high and low.",
        "daily_volume_adds_up" if asset == "bars_1d" else "volume_adds_up",
        parameters=table if asset == "bars_1d" else {**table, "minutes": minutes},
    )
    return (*shared, conserved)


CHECKS: Final[tuple[Check, ...]] = (
    Check(
        "ticks",
        ROWS_PRESENT,
        "Every symbol that is listed and not suspended sent ticks this day.",
        "ticks_present",
        "quality_missing_symbols_warn",
        "quality_missing_symbols_error",
    ),
    Check(
        "ticks",
        SEQUENCE_CONTINUOUS,
        "The batch numbers of every feed session have no gap: the loss rate, exact.",
        "sequence_continuous",
        0.0,
        "quality_loss_rate_error",
    ),
    Check("ticks", NO_DUPLICATE_KEYS, "No tick is stored twice.", "ticks_duplicates", 0.0, None),
    Check(
        "ticks",
        DELAY,
        "99 % of live ticks reach this system within the limit (exchange time to callback), in ms.",
        "delay",
        "quality_delay_p99_ms",
        None,
    ),
    Check(
        "ticks",
        NO_SILENCE,
        "The market was never silent for long inside the session: the longest pause in seconds.",
        "no_silence",
        "quality_silence_warn_seconds",
        "quality_silence_error_seconds",
    ),
    Check(
        "ticks",
        SHARE_REJECTED,
        "Few ticks were rejected at ingestion (they are in ticks_rejected with their reason).",
        "share_rejected",
        "quality_rejected_share_warn",
        "quality_rejected_share_error",
    ),
    Check(
        "ticks",
        STORAGE,
        "The disk has room (share in use), and no day outlives its TTL.",
        "storage",
        "quality_disk_share_warn",
        "quality_disk_share_error",
    ),
    *_of_bars("bars_1m"),
    Check(
        "bars_1m",
        NO_MISSING_FRAMES,
        "From its first trade on, each symbol has every minute of the calendar.",
        "no_missing_frames",
        0.0,
        "quality_missing_frames_error",
    ),
    Check(
        "bars_1m",
        RECOMPUTED_EQUAL,
        "The day computed once more from all its ticks gives the bars that were made minute by minute (differing ones "
        "are repaired).",
        "recomputed_equal",
    ),
    Check(
        "bars_1m",
        SYMBOLS_KEEP_TICKING,
        "Active symbols do not fall silent together: the largest share that did so in one minute (halts take few).",
        "symbols_keep_ticking",
        "quality_silent_symbols_warn",
        "quality_silent_symbols_error",
    ),
    Check(
        "bars_1m",
        WITHIN_PRICE_LIMITS,
        "No bar lies outside the day's price limits.",
        "within_price_limits",
        0.0,
        None,
    ),
    Check(
        "bars_1m",
        SHARE_FILLED,
        "Few minutes had no trade (their bars repeat the last price and are marked as filled).",
        "share_filled",
        "quality_filled_share_warn",
        None,
    ),
    *_of_bars("bars_5m", base="bars_1m"),
    *_of_bars("bars_30m", base="bars_1m"),
    *_of_bars("bars_1d", base="bars_1m"),
    Check(
        "bars_1m",
        QMT_ROWS,
        "Share of QMT's own minutes with trades that our bars lack.",
        "qmt_rows",
        0.0,
        "quality_qmt_mismatch_error",
    ),
    Check(
        "bars_1m",
        QMT_VOLUME,
        "Share of minutes whose volume differs from QMT's by more than a lot.",
        "qmt_volume",
        "quality_qmt_mismatch_warn",
        "quality_qmt_mismatch_error",
    ),
    Check(
        "bars_1m",
        QMT_AMOUNT,
        "Share of minutes whose amount differs from QMT's by more than its rounding.",
        "qmt_amount",
        "quality_qmt_mismatch_warn",
        "quality_qmt_mismatch_error",
    ),
    Check(
        "bars_1m",
        QMT_OHLC,
        "Share of minutes whose open, high, low or close differs from QMT's.",
        "qmt_ohlc",
        "quality_qmt_mismatch_warn",
        "quality_qmt_mismatch_error",
    ),
    Check(
        "bars_1m",
        QMT_DAILY,
        "Share of symbols whose minutes do not add up to QMT's daily volume and extremes.",
        "qmt_daily",
        "quality_qmt_mismatch_warn",
        "quality_qmt_mismatch_error",
    ),
    Check(
        "instruments",
        COUNT_AGAINST_YESTERDAY,
        "The number of instruments is about that of the trading day before (share of change).",
        "count_against_yesterday",
        "quality_instruments_change_warn",
        "quality_instruments_change_error",
    ),
    Check(
        "instruments",
        LIMITS_KNOWN,
        "Every listed, not suspended instrument has the day's price limits and a previous close.",
        "limits_known",
        "quality_limits_unknown_warn",
        None,
    ),
    Check(
        "instruments",
        KINDS_AGREE,
        "The kind of every instrument (by its code) is what the terminal's own types and sectors say.",
        "kinds_agree",
        0.0,
        None,
    ),
    Check(
        "instruments",
        CALENDAR_HORIZON,
        "The exchange calendar knows the coming trading days: how many are missing of those wanted.",
        fatal="quality_calendar_missing_error",
    ),
    Check(
        "tick_stream",
        FEED_FRESH,
        "Ticks flow while the market is in session: seconds since the newest one.",
        allowed="quality_silence_warn_seconds",
        fatal="quality_silence_error_seconds",
    ),
    Check("tick_stream", SERVICES_ALIVE, "Every service that should run has a heartbeat: how many have not."),
    Check(
        "tick_stream",
        STREAM_LAG,
        "The writer keeps up: seconds it is behind the stream.",
        allowed="quality_lag_seconds",
        fatal="quality_lag_error_seconds",
    ),
    Check("tick_stream", NO_DEAD_LETTERS, "No entry was given up: the number of dead letters.", fatal=None),
    Check("tick_stream", NOTHING_LOST, "The writer saw every batch number of every feed session: batches lost today."),
)

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
