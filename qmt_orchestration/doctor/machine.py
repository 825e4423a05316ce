"""This host: Python, packages, ports, disk, folder, time zone."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from qmt_orchestration.doctor import Diagnosis, Role, error, ok, warning
from qmt_orchestration.extras import CLIENT, FEED
from qmt_orchestration.local import engines
from qmt_orchestration.market.schema import TZ
from qmt_orchestration.settings import Settings

DISTRIBUTION: Final = "qmt-orchestration"
PYTHONS: Final = ((3, 10), (3, 13))
#: Free space in GB: below the first an error, below the second a warning. Ticks of a day take about 2 GB.
FREE_GB: Final = {"feed": (2.0, 8.0), "warehouse": (5.0, 60.0), "client": (0.5, 2.0), "all": (5.0, 60.0)}
PROBE_MB: Final = 32
SLOW_MB_PER_SECOND: Final = 50.0


def python_version(version: tuple[int, int] = sys.version_info[:2]) -> Diagnosis:
    """Whether this Python is one that the project supports."""
    (low, high), found = PYTHONS, ".".join(map(str, version))
    wanted = f"{low[0]}.{low[1]} to {high[0]}.{high[1]}"
    if low <= version <= high:
        return ok("python", f"Python {found}")
    return error("python", f"Python {found}; expected {wanted}", f"make an environment of Python {wanted}")


def packages(role: Role, required: Sequence[str] | None = None) -> list[Diagnosis]:
    """Packages of the role that are missing or out of the range of pyproject.toml. *required* replaces the ranges."""
    try:
        ranges = list(required if required is not None else importlib.metadata.requires(DISTRIBUTION) or ())
    except importlib.metadata.PackageNotFoundError:
        return [error("packages", f"{DISTRIBUTION} is not installed", "pip install . in its checkout")]
    only = {"feed": FEED, "client": CLIENT}.get(role)
    findings, good = [], 0
    for text in ranges:
        name = re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0]
        if "extra ==" in text or (only is not None and name not in only):
            continue
        problem = _problem(name, text)
        if problem:
            findings.append(error("packages", problem, f"pip install '{text.partition(';')[0].strip()}'"))
        good += not problem
    return findings or [ok("packages", f"{good} packages within their ranges")]


def _problem(name: str, requirement: str) -> str:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"{name} is missing; expected {requirement}"
    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError:  # the small installs have no packaging: presence is all that can be said
        return ""
    wanted = Requirement(requirement)
    if wanted.marker and not wanted.marker.evaluate():
        return ""
    return "" if wanted.specifier.contains(version, prereleases=True) else f"{name} {version}; expected {requirement}"


def port(number: int, name: str, setting: str, *, ours: bool) -> Diagnosis:
    """Whether a port that this host is to listen on is free; *ours*: what may listen there is the service itself."""
    problem = engines.port_problem(number)
    if not problem:
        return ok("ports", f"{number} is free for {name}")
    if ours:
        return ok("ports", f"{number}: {name} listens")
    return error("ports", f"{number}, wanted by {name}, is in use ({problem})", f"free it, or set {setting}")


def data_dir(folder: Path) -> Diagnosis:
    """Whether the data folder can be written, and by whom its secrets can be read."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".doctor-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as problem:
        owner = "the user that runs the services"
        return error("data folder", f"{folder} cannot be written: {problem.strerror}", f"give it to {owner} (chown)")
    mode = stat.S_IMODE(folder.stat().st_mode)
    if os.name != "nt" and mode & 0o002:
        return warning("data folder", f"{folder} can be written by everybody (mode {mode:o})", f"chmod 0750 {folder}")
    return ok("data folder", f"{folder} can be written")


def settings_file(path: str | None) -> Diagnosis:
    """Whether the file of passwords is for its owner alone."""
    if not path:
        return ok("settings file", "QMT_ENV_FILE is not set: settings come from the environment")
    mode = stat.S_IMODE(Path(path).stat().st_mode)
    if os.name != "nt" and mode & 0o077:
        return warning("settings file", f"{path} can be read by others (mode {mode:o})", f"chmod 0600 {path}")
    return ok("settings file", f"{path} is for its owner alone" if os.name != "nt" else path)


def disk_space(folder: Path, role: Role, free_bytes: int | None = None) -> Diagnosis:
    """Free space where the data folder is."""
    free = (shutil.disk_usage(_existing(folder)).free if free_bytes is None else free_bytes) / 1e9
    least, enough = FREE_GB[role]
    mend = f"free space, or move QMT_DATA_DIR (now {folder})"
    if free < least:
        return error("disk space", f"{free:.1f} GB free; expected at least {least:g} GB", mend)
    if free < enough:
        keep = "; a day of the whole market takes about 2 GB of ticks (QMT_TICKS_TTL_DAYS says how many are kept)"
        return warning("disk space", f"{free:.1f} GB free; expected {enough:g} GB" + keep, mend)
    return ok("disk space", f"{free:.0f} GB free")


def disk_speed(folder: Path, probe_mb: int = PROBE_MB, slow: float = SLOW_MB_PER_SECOND) -> Diagnosis:
    """How fast the data folder's disk takes *probe_mb* MB, flushed to the disk; the file is removed."""
    block = os.urandom(1 << 20)
    path = folder / f".doctor-speed-{os.getpid()}"
    try:
        began = time.monotonic()
        with path.open("wb") as out:
            for _ in range(probe_mb):
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
        speed = probe_mb / max(time.monotonic() - began, 1e-6)
    except OSError as problem:
        return error("disk speed", f"{folder}: {problem.strerror}", "see the line of the data folder")
    finally:
        with suppress(OSError):
            path.unlink()
    if speed < slow:
        mend = "use a local SSD for QMT_DATA_DIR; a network share or a memory card is too slow for the opening call"
        return warning("disk speed", f"{speed:.0f} MB/s written and flushed; expected {slow:g} MB/s", mend)
    return ok("disk speed", f"{speed:.0f} MB/s written and flushed")


def time_zone(settings: Settings, offset: timedelta | None = None) -> Diagnosis:
    """Whether the zone of the market is known here, and beside QMT whether it is the machine's own."""
    try:
        ZoneInfo(TZ)
    except ZoneInfoNotFoundError:
        return error("time zone", f"{TZ} is not known on this machine", "pip install tzdata")
    local = datetime.now(timezone.utc).astimezone().utcoffset() if offset is None else offset
    if local == timedelta(hours=8):
        return ok("time zone", "UTC+8")
    shown = f"UTC{(local or timedelta()).total_seconds() / 3600:+g}"
    if settings.feed == "xtquant":
        mend = "set it to (UTC+08:00) Beijing: xtquant reckons days in local time"
        return warning("time zone", f"{shown} beside QMT", mend)
    return ok("time zone", f"{shown}; times are stored as {TZ} whatever the machine's zone is")


def _existing(folder: Path) -> Path:
    return next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
