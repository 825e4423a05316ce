"""The snapshots of a simulated day, one clock minute at a time.

A minute is a grid of 20 slots of 3 s per symbol; in a slot a symbol has one snapshot or none, at a random whole
second. Prices walk from the cell's open to its close and touch its high and low (or, between two snapshots, show them
only in the day's high and low). A snapshot *falls due* within the second after its time stamp, so pushes are spread as
the real ones are. `MarketDay` says what must come out; nothing here feeds back into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from qmt_orchestration.market.sessions import at, to_ms
from qmt_orchestration.simulator.cells import (
    AUCTION,
    CELLS,
    CLOSING,
    NO_LOW,
    NOON,
    RESIDUAL,
    SLOTS,
    cell_of,
    minute_bits,
    paths,
)
from qmt_orchestration.simulator.hashing import I64, U64, Bool, field
from qmt_orchestration.simulator.market import AFTER_HOURS_FROM, HALT_CELLS, HALTED, LATE_FROM, MarketDay

SLOT_MS: Final = 3000

# openInt, the trading phase
_PRE_OPEN, _CALL, _CONTINUOUS, _BREAK, _CLOSED, _HALT, _CLOSING_CALL, _AFTER_HOURS = 11, 12, 13, 14, 15, 17, 18, 22
_STALE: Final = 1

#: Clock minutes that hold snapshots, in order.
MINUTES: Final[tuple[int, ...]] = (540, *range(555, 691), *range(780, 930))


@dataclass(frozen=True)
class Block:
    """Snapshots of one clock minute, sorted by *due* (epoch ms when a push carries them); prices in cents."""

    row: I64  # index into MarketDay.symbols
    time: I64  # epoch ms, the exchange's time stamp
    due: I64
    price: I64
    open: I64
    high: I64
    low: I64
    volume: I64  # cumulative shares
    amount: I64  # cumulative cents
    phase: I64
    book: I64  # random bits for the order book

    def __len__(self) -> int:
        return len(self.row)

    def take(self, chosen: Any) -> Block:
        """The snapshots at these positions (slice, indices or mask)."""
        return Block(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


class TickMaker:
    """Makes the blocks of one day. Going forward is cheap; a jump ahead computes the amounts in between."""

    def __init__(self, day: MarketDay) -> None:
        self.day = day
        self.midnight_ms = to_ms(at(day.day, 0))
        self._opening = day.opening()
        self._after = np.cumsum(day.after_hours, axis=1)
        self._shanghai: Bool = np.array([s.endswith(".SH") for s in day.symbols])
        self._first_phase = np.where(self._shanghai, _CONTINUOUS, _BREAK)  # 09:25-09:30
        self._amount = np.zeros((len(day.symbols), CELLS + 1), np.int64)  # cumulative before each cell
        self._known = 0  # cells whose amount is in _amount

    def block(self, minute: int) -> Block:
        """The snapshots stamped within this minute of the day (minutes since midnight)."""
        bits = minute_bits(self.day, minute)
        cell = cell_of(minute)
        if cell is not None:
            return self._continuous(minute, cell, bits)
        if minute == 540:
            return self._quiet(minute, bits, before=AUCTION, after=AUCTION, switch=SLOTS, forced=(0,), phase=_PRE_OPEN)
        if minute < 565:
            return self._call(minute, bits)
        if minute < 570:
            switch = 0 if minute == 565 else SLOTS
            before = AUCTION if minute == 565 else AUCTION + 1
            forced, chance = ((0,), 0.05) if minute == 565 else ((), 0.02)
            return self._quiet(minute, bits, before, AUCTION + 1, switch, forced, chance, self._first_phase)
        if minute == 690:
            return self._quiet(minute, bits, NOON, NOON + 1, 0, (0,), 0.02, _CONTINUOUS)
        if minute < 900:
            phase = np.where(self.day.continuous, _CONTINUOUS, _CLOSING_CALL)
            if minute == 897:
                return self._quiet(minute, bits, RESIDUAL, RESIDUAL + 1, 0, (0,), 0.25, phase)
            return self._call_or_last_minute(minute, bits, phase)
        return self._close(bits) if minute == 900 else self._late(minute, bits)

    # -- kinds of minutes -----------------------------------------------------------------------------------

    def _continuous(self, minute: int, cell: int, bits: U64) -> Block:
        day = self.day
        price, shares, high, low, amount = paths(day, cell, bits)
        base = self._amount_before(cell, amount[:, -1])
        chance = np.where(day.traded[:, cell], 0.92, np.where(day.rare, 0.1, 0.3))
        halted = self._halted(cell)
        chance = np.where(halted, 0.02, chance)
        present = field(bits, 16, 10) < (1024 * chance).astype(np.int64)[:, None]
        moved = np.diff(shares, axis=1, prepend=0) > 0
        key = moved & ((price == day.high[:, cell, None]) | (price == day.low[:, cell, None]))
        jump = (np.diff(high, axis=1, prepend=high[:, :1]) != 0) | (np.diff(low, axis=1, prepend=low[:, :1]) != 0)
        present |= key | jump
        present[:, 0] |= day.traded[:, cell]
        present[:, -1] |= day.traded[:, cell]
        volume = day.cumulative[:, cell, None] + shares
        phase = np.where(halted, _HALT, _CONTINUOUS)
        return self._pack(minute, bits, present, price, high, low, volume, base[:, None] + amount, phase)

    def _halted(self, cell: int) -> Bool:
        start = self.day.halt_cell
        halted: Bool = (self.day.kind == HALTED) & (cell >= start) & (cell < start + HALT_CELLS)
        return halted

    def _quiet(
        self,
        minute: int,
        bits: U64,
        before: int,
        after: int,
        switch: int,
        forced: tuple[int, ...],
        chance: float = 0.0,
        phase: I64 | int = 0,
    ) -> Block:
        """A minute in which the state changes once, at slot *switch*: from that before cell *before* to *after*."""
        slots = np.arange(SLOTS)[None, :]
        new = slots >= switch
        states = [self._state(cell) for cell in (before, after)]
        price, high, low, volume, amount = (
            np.where(new, b[:, None], a[:, None]) for a, b in zip(states[0], states[1], strict=True)
        )
        present = field(bits, 16, 10) < int(1024 * chance)
        for slot in forced:
            present[:, slot] = True
        return self._pack(minute, bits, present, price, high, low, volume, amount, phase)

    def _call_or_last_minute(self, minute: int, bits: U64, phase: I64) -> Block:
        """14:58 and 14:59: nothing trades in the closing call; what has none shows its last trade at 14:59."""
        first, then = self._state(RESIDUAL + 1), self._state(CELLS)
        traded = self.day.continuous & (minute == 899)
        values = (np.where(traded, b, a)[:, None].repeat(SLOTS, axis=1) for a, b in zip(first, then, strict=True))
        price, high, low, volume, amount = values
        present = field(bits, 16, 10) < 256
        present[:, 0] |= traded
        return self._pack(minute, bits, present, price, high, low, volume, amount, phase)

    def _close(self, bits: U64) -> Block:
        """15:00: Shenzhen repeats the last price at 15:00:00, then every symbol shows the closing auction."""
        first, then = self._state(CLOSING), self._state(CELLS)
        new = (np.arange(SLOTS)[None, :] >= 1) | self.day.continuous[:, None]
        values = [np.where(new, b[:, None], a[:, None]) for a, b in zip(first, then, strict=True)]
        present = field(bits, 16, 10) < 10
        present[:, 0] = ~self._shanghai & ~self.day.continuous
        present[:, 1] = True
        phase = np.where(np.arange(SLOTS)[None, :] >= 1, _CLOSED, _CLOSING_CALL)
        phase = np.where(self.day.traits.repo[:, None], _CONTINUOUS, phase)
        bits[:, 0] &= ~np.uint64(0xFF << 32)  # stamped 15:00:00 exactly
        price, high, low, volume, amount = values
        return self._pack(900, bits, present, price, high, low, volume, amount, phase)

    def _call(self, minute: int, bits: U64) -> Block:
        """The opening call: a virtual match price, nothing traded, no open, high or low."""
        day = self.day
        zero = np.zeros((len(day.symbols), SLOTS), np.int64)
        left = 565 - minute
        swing = day.close[:, AUCTION, None] * (field(bits, 0, 8) - 128) * left // 60_000
        virtual: I64 = np.clip(day.close[:, AUCTION, None] + swing, day.down[:, None], day.up[:, None])
        price = np.where(day.traded[:, AUCTION, None], virtual, 0)
        present = field(bits, 16, 10) < 300
        return self._pack(minute, bits, present, price, zero, zero, zero, zero, _CALL)

    def _late(self, minute: int, bits: U64) -> Block:
        """15:01-15:30: fixed-price trades at the close from 15:05 on; a repo trades on, at prices within the day's."""
        close, high, low, volume, amount = (np.repeat(x[:, None], SLOTS, axis=1) for x in self._state(CELLS))
        n, repo = minute - LATE_FROM, self.day.traits.repo
        earlier: I64 = self._after[:, n - 1] if n else np.zeros(len(close), np.int64)
        extra: I64 = np.where(np.arange(SLOTS)[None, :] >= 10, self._after[:, n, None], earlier[:, None])
        present = field(bits, 16, 10) < (10 if minute < 903 else 0)
        present[:, 10] |= self.day.after_hours[:, n] > 0
        price = np.where(repo[:, None], np.clip(close + field(bits, 0, 3) - 4, low, high), close)
        phase = np.where(repo, _CONTINUOUS, _CLOSED if minute < AFTER_HOURS_FROM else _AFTER_HOURS)
        return self._pack(minute, bits, present, price, high, low, volume + extra, amount + extra * close, phase)

    # -- shared ---------------------------------------------------------------------------------------------

    def _amount_before(self, cell: int, own: I64 | None = None) -> I64:
        """Cumulative amount before *cell*; *own* is that of the cell itself where the caller has just computed it."""
        if self._known < cell:
            per_cell = self.day.amounts()
            self._amount[:, 1:] = np.cumsum(per_cell, axis=1)
            self._known = CELLS
        if own is not None and self._known == cell:
            self._amount[:, cell + 1] = self._amount[:, cell] + own
            self._known = cell + 1
            if cell + 1 in (NOON, RESIDUAL, CLOSING):
                flat = self.day.close[:, cell + 1] * self.day.volume[:, cell + 1]
                self._amount[:, cell + 2] = self._amount[:, cell + 1] + flat
                self._known = cell + 2
        return self._amount[:, cell]

    def _state(self, cell: int) -> tuple[I64, I64, I64, I64, I64]:
        """(price, day high, day low, cumulative shares, cumulative amount) before *cell* trades."""
        day = self.day
        volume = day.cumulative[:, cell]
        if cell == 0:
            zero = np.zeros(len(day.symbols), np.int64)
            return zero, zero, zero, zero, zero
        if cell == 1 and self._known == 0:
            self._amount[:, 1] = day.close[:, 0] * day.volume[:, 0]
            self._known = 1
        if cell == CELLS and self._known == CLOSING:
            self._amount[:, CELLS] = self._amount[:, CLOSING] + day.close[:, CLOSING] * day.volume[:, CLOSING]
            self._known = CELLS
        low = day.day_low[:, cell - 1]
        return day.close[:, cell - 1], day.day_high[:, cell - 1], low, volume, self._amount_before(cell)

    def _pack(
        self,
        minute: int,
        bits: U64,
        present: Bool,
        price: I64,
        high: I64,
        low: I64,
        volume: I64,
        amount: I64,
        phase: I64 | int,
    ) -> Block:
        """Flatten the grid to the snapshots that exist, sorted by due time."""
        present &= ~self.day.suspended[:, None]
        where = np.flatnonzero(present)
        row, slot = where // SLOTS, where % SLOTS
        chosen = bits.ravel()[where]
        second = field(chosen, 32, 8) % 3
        time = self.midnight_ms + minute * 60_000 + slot * SLOT_MS + second * 1000
        due = time + field(chosen, 44, 16) % 1000
        order = np.argsort(due, kind="stable")
        where, row = where[order], row[order]
        phases = np.asarray(phase)
        phases = np.broadcast_to(phases[:, None] if phases.ndim == 1 else phases, present.shape)
        volume_ = volume.ravel()[where]
        low_ = low.ravel()[where]
        return Block(
            row=row,
            time=time[order],
            due=due[order],
            price=price.ravel()[where],
            open=np.where(volume_ > 0, self._opening[row], 0),
            high=high.ravel()[where],
            low=np.where(low_ >= NO_LOW, 0, low_),
            volume=volume_,
            amount=amount.ravel()[where],
            phase=phases.ravel()[where].astype(np.int64),
            book=chosen[order].astype(np.int64) & 0x7FFFFFFF,
        )

    def stale(self) -> Block:
        """One snapshot of each suspended symbol, stamped at the close of the day before it (first pushes hold them)."""
        from qmt_orchestration.market.calendar import previous_trading_day

        row = np.flatnonzero(self.day.suspended)
        zero = np.zeros(len(row), np.int64)
        stamp = to_ms(at(previous_trading_day(self.day.day), 900)) + zero
        price = self.day.last_close[row]
        return Block(row, stamp, stamp, price, zero, zero, zero, zero, zero, zero + _STALE, zero)


def snapshot(maker: TickMaker, until_ms: int) -> Block:
    """The last snapshot of every symbol due by *until_ms* (epoch ms), stale ones of the suspended included."""
    found = [maker.stale()]
    missing = ~maker.day.suspended
    for minute in reversed(MINUTES):
        if maker.midnight_ms + minute * 60_000 > until_ms:
            continue
        block = maker.block(minute)
        block = block.take(slice(0, int(np.searchsorted(block.due, until_ms, side="right"))))
        last = np.full(len(missing), -1)
        last[block.row] = np.arange(len(block))
        chosen = last[missing & (last >= 0)]
        found.append(block.take(chosen))
        missing[block.row] = False
        if not missing.any():
            break
    return Block(*(np.concatenate([getattr(b, name) for b in found]) for name in Block.__dataclass_fields__))
