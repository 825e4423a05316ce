"""The `qmt` command, run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from qmt_orchestration.cli.main import main

Ran = tuple[int, str, str]  # exit code, standard output, standard error
Run = Callable[..., Ran]


@pytest.fixture
def qmt(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line as its entry point does, in a pipe."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*argv: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["qmt", *argv])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        assert "unexpected" not in err, err
        return code if isinstance(code, int) else 0 if code is None else 1, out, err

    return run
