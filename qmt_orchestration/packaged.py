"""Files that belong to the project and not to a module: in a checkout beside the package, in a wheel inside it."""

from __future__ import annotations

from pathlib import Path


def project_file(name: str) -> Path:
    """Path of ``dagster.yaml`` or ``workspace.yaml``. Raises FileNotFoundError when the installation lacks it."""
    package = Path(__file__).resolve().parent
    for path in (package.parent / name, package / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{name} is neither beside nor inside {package}: install qmt-orchestration again")
