"""When something may be sent: errors always, warnings (and their recoveries) only while people are at the market."""

from __future__ import annotations

from datetime import datetime, time
from typing import Final

from qmt_orchestration.alerts.messages import Finding
from qmt_orchestration.market.calendar import is_trading_day
from qmt_orchestration.market.sessions import AFTER_HOURS_END, PRE_OPEN, SHANGHAI

BEGINS: Final[time] = PRE_OPEN
ENDS: Final[time] = AFTER_HOURS_END


def may_send(finding: Finding, now: datetime) -> bool:
    """Whether *finding* may be sent at *now* (aware): a WARN waits for 09:15 to 15:30 of a trading day."""
    if finding.severity == "ERROR":
        return True
    here = now.astimezone(SHANGHAI)
    return is_trading_day(here.date()) and BEGINS <= here.time() < ENDS
