"""``python -m qmt_orchestration.services run NAME``: one service in this process, until a signal or its parent's end.

Exit code: the service's own; 70 it raised, 73 it already runs here, 75 its lease went to another instance, 78 a
setting is wrong or its module is missing.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from qmt_orchestration.exit_codes import EXIT_ALREADY, EXIT_CONFIG, EXIT_LEASE_LOST, EXIT_UNEXPECTED
from qmt_orchestration.services.lock import only_one
from qmt_orchestration.services.logs import set_up_logging
from qmt_orchestration.services.registry import (
    SERVICES,
    Service,
    load_run,
)
from qmt_orchestration.settings import Settings, process_settings, refusal
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.heartbeat import Heartbeat
from qmt_orchestration.stream.lease import Lease, owner_is_dead, process_owner

LEASE_TTL_MS = 5000
_STOP_SECONDS = 15.0  # orphaned and still not done: leave for good

log = logging.getLogger("services")


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and run the service."""
    parser = argparse.ArgumentParser(prog="python -m qmt_orchestration.services")
    run = parser.add_subparsers(dest="verb", required=True).add_parser("run", help="run one service in this process")
    run.add_argument("name", help=f"one of {', '.join(SERVICES)}, or any name with --module")
    run.add_argument("--module", default="", help="module with run(settings, stop) -> int, instead of the known one")
    run.add_argument("--lease", default="", help="with --module: name of the lease only one instance may hold")
    run.add_argument("--log-dir", type=Path, default=None, help="log to a rotated file there instead of stderr")
    run.add_argument("--supervised", action="store_true", help="stop when standard input ends (the parent is gone)")
    args = parser.parse_args(argv)
    os.umask(0o077)  # spool, checkpoints and logs are this user's alone
    if args.module:
        service = Service(args.name, args.module, lease=args.lease)
    elif args.name in SERVICES:
        service = SERVICES[args.name]
    else:
        parser.error(f"expected one of {', '.join(SERVICES)}, found {args.name!r}")
    try:
        settings = process_settings()
    except ValueError as error:
        problem = refusal(error)
        if not problem:
            raise
        sys.stderr.write(f"{problem}\n")
        return EXIT_CONFIG
    set_up_logging(settings, service.name, args.log_dir)
    return run_service(settings, service, supervised=args.supervised)


def run_service(settings: Settings, service: Service, *, supervised: bool = False) -> int:
    """Run *service* here: signals set its stop event; one instance per data_dir; its lease, if it has one."""
    stop = threading.Event()
    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: stop.set())
    if supervised:
        threading.Thread(target=_watch_parent, args=(stop,), name="parent", daemon=True).start()
    with only_one(settings.run_dir / f"{service.name}.lock") as alone:
        if not alone:
            log.error(
                "%s already runs on %s for data_dir %s; see `qmt status`",
                service.name,
                settings.host,
                settings.data_dir,
            )
            return EXIT_ALREADY
        try:
            run = load_run(service)
        except ImportError:
            log.exception("module %s of service %s cannot be imported", service.module, service.name)
            return EXIT_CONFIG
        log.info("%s starts, pid %d, host %s", service.name, os.getpid(), settings.host)
        try:
            code = _run_leased(settings, service, run, stop) if service.lease else run(settings, stop)
        except Exception:
            log.exception("%s failed", service.name)
            code = EXIT_UNEXPECTED
        log.info("%s ends with code %d", service.name, code)
        return code


def _run_leased(settings: Settings, service: Service, run: Any, stop: threading.Event) -> int:
    """Wait for the lease, run, and stop as soon as another owner has it."""
    client = connect(settings, retries=0)
    lease = Lease(client, service.lease, process_owner(settings.host), LEASE_TTL_MS)
    if not _wait_for_lease(settings, service, lease, stop):
        return 0
    log.info("%s holds lease %s, token %d", service.name, lease.name, lease.token)
    lost = threading.Event()
    done = threading.Event()

    def keep() -> None:
        while not done.wait(LEASE_TTL_MS / 4000):
            try:
                # Away means in doubt, not lost: what this service does, it does in that same Redis.
                if not lease.renew() and not lease.acquire():
                    log.error("lease %s went to %s: stopping", lease.name, lease.holder())
                    lost.set()
                    stop.set()
                    return
            except redis.RedisError as error:
                log.warning("lease %s in doubt: %s", lease.name, error)

    keeper = threading.Thread(target=keep, name="lease", daemon=True)
    keeper.start()
    try:
        code = int(run(settings, stop))
    finally:
        done.set()
        keeper.join()
        with _quiet_redis():
            lease.release()
    return EXIT_LEASE_LOST if lost.is_set() else code


def _wait_for_lease(settings: Settings, service: Service, lease: Lease, stop: threading.Event) -> bool:
    """Stand by until the lease is ours (True) or *stop* is set (False); beats meanwhile, so that it counts as alive."""
    heartbeat = Heartbeat(lease.client, settings, service.name)
    announced = False
    while not stop.is_set():
        with _quiet_redis():
            holder = lease.holder()
            # A dead process of this host cannot come back: no need to wait for its lease to run out.
            dead = holder if owner_is_dead(holder, settings.host) else ""
            if lease.acquire(instead_of=dead):
                return True
            if not announced:
                log.info("%s stands by: lease %s is held by %s", service.name, lease.name, holder)
                announced = True
            heartbeat.beat({"state": "standby"})
        stop.wait(0.5)
    return False


@contextmanager
def _quiet_redis() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        log.warning("Redis is away: %s", error)


def _watch_parent(stop: threading.Event) -> None:
    """Standard input is a pipe from the parent: its end means stop, on every platform, without a signal."""
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    stop.set()
    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.2)
    log.critical("not done %d s after the parent ended: leaving", _STOP_SECONDS)
    os._exit(EXIT_UNEXPECTED)


if __name__ == "__main__":
    sys.exit(main())
