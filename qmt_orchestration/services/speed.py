"""How fast a simulated market may run on this machine: samples in, speed and reason out. No I/O.

The market slows down before ticks take longer than a second to become visible or final bars fall two market minutes
behind, and becomes faster again slowly: around the speed that was too much last time, very slowly.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

SLOWEST: Final = 1.0
FASTEST: Final = 20.0
FIRST: Final = 4.0  # a start is busy with itself: imports, instruments, first merges
DELAY_LIMIT_S: Final = 1.0  # wall seconds, callback to visible, 99th percentile
BEHIND_LIMIT_MINUTES: Final = 2.0  # market minutes, newest final minute to now

_CUT: Final = 0.8  # shares of the limits: above this the speed is cut …
_HOLD: Final = 0.7  # … above this it stays
_DEEPEST_CUT: Final = 0.5
_CUT_PAUSE_S: Final = 14.0  # a new speed takes effect after 2 s, and the percentile covers 10 s …
_WORSE: Final = 1.3  # … but a figure that becomes so much worse is not the old trouble
_EASY: Final = 0.55  # … below this it rises fast
_RAISE: Final = 1.007  # a second
_RAISE_EASY: Final = 1.012
_RAISE_NEAR: Final = 1.001  # in the zone around the speed that was too much: a queue shows itself slowly
_START_S: Final = 60.0  # a cut in the first minute says nothing of the speed that the machine bears
_ZONE_S: Final = 600.0  # what was too much ten minutes ago may be bearable now
_ZONE: Final = (0.85, 1.1)
_BEHIND_FULL: Final = 1.15 * BEHIND_LIMIT_MINUTES  # it rises evenly, so that less room is needed
_PEAK_SAMPLES: Final = 15


@dataclass(frozen=True)
class Sample:
    """What is measured each second; *delay_s* is None while nothing is stored (lunch, night, a dead feed)."""

    delay_s: float | None
    behind_minutes: float


@dataclass(frozen=True)
class Decision:
    """Market seconds per wall second, and why."""

    speed: float
    reason: str


class SpeedControl:
    """Feed it one sample a second with `decide`."""

    def __init__(self, speed: float = FIRST) -> None:
        self.speed = speed
        self._too_fast = FASTEST * 2
        self._cut_at, self._worst = -2 * _CUT_PAUSE_S, 0.0
        self._behind: deque[float] = deque(maxlen=_PEAK_SAMPLES)
        self._begun: float | None = None

    def decide(self, now_s: float, sample: Sample) -> Decision:
        """The speed from now on. *now_s*: monotonic seconds."""
        self._behind.append(sample.behind_minutes)
        self._begun = now_s if self._begun is None else self._begun
        delay = (sample.delay_s or 0.0) / DELAY_LIMIT_S
        now, peak = (b / _BEHIND_FULL for b in (sample.behind_minutes, max(self._behind)))
        since = now_s - self._cut_at
        worst = max(delay, now)
        if worst > _CUT:
            if self.speed > SLOWEST and (since >= _CUT_PAUSE_S or worst > self._worst * _WORSE):
                if since >= 2 * _CUT_PAUSE_S and now_s - self._begun > _START_S:  # else a cut for the same trouble
                    self._too_fast = self.speed
                self.speed = max(self.speed * max(_HOLD / worst, _DEEPEST_CUT), SLOWEST)
                self._cut_at, self._worst = now_s, worst
                self._behind.clear()
            return self._held(delay, now, sample)
        if max(delay, peak) > _HOLD or since < _CUT_PAUSE_S:
            return self._held(delay, peak, Sample(sample.delay_s, peak * _BEHIND_FULL))
        if sample.delay_s is None:
            return Decision(self.speed, f"{_text(self.speed)} ×: no ticks to measure")
        near = _ZONE[0] < self.speed / self._too_fast < _ZONE[1] and since < _ZONE_S
        rise = _RAISE_NEAR if near else _RAISE_EASY if max(delay, peak) < _EASY else _RAISE
        self.speed = min(self.speed * rise, FASTEST)
        if self.speed == FASTEST:
            return Decision(self.speed, f"{_text(self.speed)} ×, the fastest")
        return Decision(self.speed, f"{_text(self.speed)} ×, rising")

    def _held(self, delay: float, behind: float, sample: Sample) -> Decision:
        where = f"held at {_text(self.speed)} ×" + (", the slowest" if self.speed == SLOWEST else "")
        if delay >= behind:
            return Decision(self.speed, f"{where}: ticks visible after {sample.delay_s or 0.0:.1f} s")
        return Decision(self.speed, f"{where}: final bars {sample.behind_minutes:.1f} minutes behind")


def _text(speed: float) -> str:
    return f"{speed:.1f}" if speed < 3 else f"{speed:.0f}"
