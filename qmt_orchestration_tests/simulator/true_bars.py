"""The minute bars of the simulated market by its plan, not by aggregating ticks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from qmt_orchestration.market import sessions
from qmt_orchestration.simulator.market import MarketDay


@dataclass(frozen=True)
class TrueBar:
    """A minute bar as the market made it; prices and amount in yuan, volume in shares, frame = end label."""

    symbol: str
    frame: datetime
    open: float
    high: float
    low: float
    close: float
    vol: int
    amount: float
    filled: bool


def true_bars(day: date, symbol: str, seed: int = 7) -> list[TrueBar]:
    """The minute bars of *symbol* on *day* by the rule of docs/bars.md: from the first trade on, filled ones marked."""
    plan = MarketDay(seed, day, (symbol,))
    bars, scale = plan.bars(), plan.traits.scale[0].item()
    paid = plan.traits.yuan(bars["amount"], bars["vol"])[0]  # type: ignore[arg-type]
    frames = sessions.minute_frames(day)
    out: list[TrueBar] = []
    for i, frame in enumerate(frames):
        row = {name: array[0, i].item() for name, array in bars.items()}
        if not out and not row["traded"]:
            continue
        prices = {name: row[name] / scale for name in ("open", "high", "low", "close")}
        vol, amount = row["vol"], paid[i].item()
        out.append(TrueBar(symbol, frame, vol=vol, amount=amount, filled=not row["traded"], **prices))
    return out
