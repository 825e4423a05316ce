"""Dagster as services of the agent: one code server, the daemon and the webserver that use it.

The code server listens on a Unix socket in a folder of ours alone (0700): whoever reaches it can run code as us.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

from qmt_orchestration.files import project_file
from qmt_orchestration.services.registry import DAGSTER, ENGINES, Service, UnknownService
from qmt_orchestration.services.watch import Probe, http_probe
from qmt_orchestration.settings import Settings

log = logging.getLogger("agent")

_MODULE: Final = "qmt_orchestration.definitions"
_LOCATION: Final = "qmt_orchestration"  # as in workspace.yaml: the state of sensors and schedules hangs on it
_SOCKET_PATH_BYTES: Final = 100  # sun_path holds 104 (macOS) to 108
#: The beginning of any HTTP/2 connection and an empty SETTINGS frame: a gRPC server answers at once.
_HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def dagster_home(settings: Settings) -> Path:
    """``data_dir/dagster`` with the project's dagster.yaml in it (Dagster reads it from DAGSTER_HOME only).

    A file that somebody has changed there (PostgreSQL, say) stays: only what was written here is replaced.
    """
    home = (settings.data_dir / "dagster").resolve()
    home.mkdir(parents=True, exist_ok=True)
    source, copy, written = project_file("dagster.yaml"), home / "dagster.yaml", home / ".dagster.yaml.written"
    text = source.read_text()
    if copy.exists() and copy.read_text() != text:
        if not written.exists():  # from before there was a record, or a person's
            shutil.copyfile(copy, home / "dagster.yaml.before")
            log.warning("%s differs from this version's and is replaced; it is kept as dagster.yaml.before", copy)
        elif written.read_text() != copy.read_text():
            log.warning("%s was changed and stays; this version's is %s", copy, source)
            return home
    copy.write_text(text)
    written.write_text(text)
    return home


def home_in_use(settings: Settings) -> Path:
    """DAGSTER_HOME, else the folder that `qmt up` uses."""
    return Path(os.environ.get("DAGSTER_HOME") or settings.data_dir / "dagster")


def dagster_services(settings: Settings, names: tuple[str, ...], needs: tuple[str, ...] = ()) -> list[Service]:
    """The chosen ones of `DAGSTER`; daemon and webserver bring the code server with them."""
    if sys.platform == "win32":
        raise UnknownService("Dagster runs on Linux or macOS: start it on the host of ClickHouse, not beside QMT")
    unknown = set(names) - set(DAGSTER)
    if unknown:
        raise UnknownService(f"expected one of {', '.join(DAGSTER)}, found {', '.join(sorted(unknown))}")
    home, socket = dagster_home(settings), code_socket(settings)
    workspace = home / "workspace.yaml"
    workspace.write_text(
        f"# written by qmt; the code server is started beside\n"
        f'load_from:\n  - grpc_server:\n      socket: "{socket}"\n      location_name: {_LOCATION}\n'
    )
    environment = tuple({**_own_settings(settings), "DAGSTER_HOME": str(home)}.items())
    level = ("--log-level", "warning")
    code = ("-m", "dagster", "api", "grpc", "-m", _MODULE, "--socket", str(socket), "--location-name", _LOCATION)
    daemon = ("-m", "dagster._daemon", "run", "-w", str(workspace))
    address = ("-h", "127.0.0.1", "-p", str(settings.dagster_port))
    web = ("-m", "qmt_orchestration.orchestration.webserver", *address, "-w", str(workspace))
    commands = {"dagster-code": code, "dagster-daemon": daemon, "dagster-webserver": web}
    probes = {
        "dagster-code": Probe(str(socket), _HELLO),
        "dagster-daemon": Probe(),
        "dagster-webserver": http_probe(settings.dagster_port, "/server_info"),
    }
    return [
        Service(
            name,
            beats=False,
            command=(sys.executable, *commands[name], *level),
            environment=environment,
            probe=probes[name],
            needs=needs if name == "dagster-code" else (*needs, "dagster-code"),
            secrets=() if name == "dagster-webserver" else (*ENGINES, "alert_urls"),  # of runs, which the daemon starts
        )
        for name in DAGSTER
        if name in names or (names and name == "dagster-code")
    ]


def code_socket(settings: Settings) -> Path:
    """The socket of the code server: in the data directory where the path is short enough, else in the system's
    folder for temporary files, the same one for the same data directory."""
    folder = settings.run_dir.resolve()
    if len(os.fsencode(folder / "dagster.sock")) > _SOCKET_PATH_BYTES:
        name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"qmt-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user: remove it, or choose a data_dir with a shorter path")
    folder.chmod(0o700)
    return folder / "dagster.sock"


def _own_settings(settings: Settings) -> dict[str, str]:
    """What Dagster's processes have instead of the agent's settings: who they are in Redis and ClickHouse."""
    if settings.dagster_env_file is None:
        return {}
    if not settings.dagster_env_file.is_file():
        raise ValueError(f"QMT_DAGSTER_ENV_FILE names {settings.dagster_env_file}, where no file is")
    return {name: value or "" for name, value in dotenv_values(settings.dagster_env_file).items()}
