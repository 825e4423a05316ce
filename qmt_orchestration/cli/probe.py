"""`qmt probe-terminal`: what a real terminal says of every kind of instrument, in one file to send."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from qmt_orchestration.cli.access import DataDir, fail, settings_of


def probe_terminal(
    output: Annotated[Path, typer.Option(help="File to write")] = Path("terminal.json"),
    seconds: Annotated[float, typer.Option(min=1, help="Longest wait for the terminal")] = 120.0,
    data_dir: DataDir = None,
) -> None:
    """Ask the terminal about two or three codes of each kind: tick, bars, detail, type, trading periods. Read-only.

    The file has no account or password in it. Exit code 1 when the terminal does not answer.
    """
    settings = settings_of(data_dir)
    output.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "qmt_orchestration.feed.probe", str(output)]
    environment = settings.child_environment(secrets=())
    said = ""
    try:
        asked = subprocess.run(
            argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
        said = asked.stderr.decode("utf-8", errors="replace").strip().splitlines()[-1] if asked.returncode else ""
    except subprocess.TimeoutExpired:
        said = f"the terminal did not answer within {seconds:g} s (--seconds)"
    codes = json.loads(output.read_text(encoding="utf-8"))["codes"] if output.is_file() else {}
    if said or not codes:
        kept = f"; {output} holds {len(codes)} codes" if codes else ""
        fail(f"{said or 'no code was answered'}{kept}: is MiniQMT started and logged in?")
    typer.echo(f"{len(codes)} codes written to {output}")
