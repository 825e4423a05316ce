"""`qmt up`: the whole system on one machine, with one command.

Runs the agent over the embedded engines (unless servers are configured), the always-on services and Dagster's
processes; shows a live line and sets the speed of the simulated market; on Ctrl-C ends every process it started and
leaves the data. A second start goes on with the same data and, for the simulated market, at the market time where the
first one stopped.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable
from typing import Any, Final

from qmt_orchestration.local import engines
from qmt_orchestration.market import calendar
from qmt_orchestration.services.agent import Agent, running
from qmt_orchestration.services.dagster_processes import dagster_services
from qmt_orchestration.services.engine_processes import start_engines
from qmt_orchestration.services.live_line import LiveLine
from qmt_orchestration.services.lock import only_one
from qmt_orchestration.services.logs import set_up_logging
from qmt_orchestration.services.pilot import Market, Pilot, market_of
from qmt_orchestration.services.registry import DAGSTER, SERVICES, Service
from qmt_orchestration.settings import Settings
from qmt_orchestration.simulator.faults import parse_fault
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.warehouse.migrate import migrate

Say = Callable[[str], None]
LAYOUT: Final = 2  # of a data directory; a later version's is refused


class UpError(RuntimeError):
    """The system cannot start; the message says why and what to do."""


def up(settings: Settings, *, chosen_date: str | None, speed: float | None, ui: bool, say: Say) -> int:
    """Run everything until SIGINT or SIGTERM; 0 after an orderly end. *speed*: fixed; None follows the machine.

    Raises `UpError`, ValueError, or the engines' and the warehouse's errors, with nothing left running.
    """
    require_a_market(settings, chosen_date, speed)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT:  # nohup; a shell's "&"
            signal.signal(number, lambda *_: stop.set())
    with only_one(settings.run_dir / "agent.lock") as alone:
        if not alone:
            raise UpError(
                f"{settings.data_dir} is in use by another `qmt up` or `qmt agent`: stop it with Ctrl-C there, or "
                "choose another folder with --data-dir"
            )
        require_known_layout(settings)
        set_up_logging(settings, "agent", settings.data_dir / "logs")
        with running(settings) as agent:
            if ui:
                require_free_port(settings.dagster_port, "the Dagster webserver", "QMT_DAGSTER_PORT")
                require_free_port(settings.console_port, "the console", "QMT_CONSOLE_PORT")
            say("starting Redis and ClickHouse")
            ready = start_engines(settings, agent)
            make_tables(ready)
            redis = connect(ready, retries=0)
            _run(agent, market_of(ready, redis, chosen_date, speed), redis, stop, ui=ui, say=say)
            say("stopping; the data stays in " + str(settings.data_dir))
    return 0


def _run(agent: Agent, market: Market, redis: Any, stop: threading.Event, *, ui: bool, say: Say) -> None:
    pilot = Pilot(market, redis)  # its clock is in Redis before anybody reads it
    agent.listen()  # a service that a person has stopped must not start
    agent.add(system_services(market.settings, ui), market.settings)
    live_line = LiveLine(market.settings, ui=ui, say=say)
    while not stop.wait(1.0):
        live_line.show(pilot.step())
    live_line.close()
    pilot.close()


def system_services(settings: Settings, ui: bool) -> list[Service]:
    """The always-on services and Dagster's processes; without *ui* no console and no webserver."""
    needs = ("redis", "clickhouse")
    names = DAGSTER if ui else tuple(name for name in DAGSTER if name != "dagster-webserver")
    ours = [service for service in SERVICES.values() if ui or service.name != "console"]
    return [*(service.needing(needs) for service in ours), *dagster_services(settings, names, needs)]


def require_known_layout(settings: Settings) -> None:
    """Raise `UpError` when the data directory was last used by a later version of this program."""
    path = settings.data_dir / "LAYOUT"
    found = path.read_text().strip() if path.exists() else str(LAYOUT)
    if not found.isdigit() or int(found) > LAYOUT:
        raise UpError(
            f"{settings.data_dir} was written by another version of qmt (layout {found[:20]!r}, known up to {LAYOUT}): "
            "use that version, or choose another folder with --data-dir"
        )
    path.write_text(f"{LAYOUT}\n")


def make_tables(settings: Settings) -> None:
    """Bring the tables to this version's; `UpError` says which data directory cannot be."""
    try:
        migrate(settings)
    except Exception as error:  # whatever the driver raises
        raise UpError(
            f"the tables of {settings.clickhouse_url} (data directory {settings.data_dir}) cannot be brought to this "
            f"version's: {str(error)[:500]}; use the version that made them, or choose another folder with --data-dir"
        ) from error


def require_free_port(port: int, what: str, mend: str) -> None:
    """Raise `UpError` when something listens on the port already."""
    if problem := engines.port_problem(port):
        raise UpError(f"port {port} for {what} is in use ({problem}): free it or set {mend}")


def require_a_market(settings: Settings, chosen_date: str | None, speed: float | None) -> None:
    """Raise `UpError` or ValueError on a date, a speed or a fault that makes no market, before anything is started."""
    if settings.feed != "simulator":
        if chosen_date is not None or settings.sim_faults or speed is not None:
            raise UpError(
                f"--date, --speed and --fault belong to the simulated market, and QMT_FEED is {settings.feed}"
            )
        return
    if speed == 0:
        raise UpError("speed 0 plays one day at once and ends: choose how fast the market is to go on, 1 = real time")
    if speed is not None and not (math.isfinite(speed) and speed > 0):
        raise UpError(f"speed: expected market seconds per second above 0, like 5, found {speed:g}")
    calendar.require_trading_day(chosen_date or settings.sim_date)
    for text in settings.sim_faults:
        parse_fault(text)
