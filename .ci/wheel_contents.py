"""Whether a wheel holds every file of the package, and what it needs from beside it."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "qmt_orchestration"
BESIDE = ("qmt_orchestration/dagster.yaml", "qmt_orchestration/workspace.yaml")


def main() -> int:
    """Exit code 1, with the names, when something is missing or does not belong there."""
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        held = set(wheel.namelist())
    ours = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    missing = sorted((ours | set(BESIDE)) - held)
    foreign = sorted(name for name in held if not name.startswith("qmt_orchestration"))
    licenses = [name for name in held if name.endswith(("licenses/LICENSE", "licenses/NOTICE"))]
    for title, names in (("missing from the wheel", missing), ("not ours", foreign)):
        if names:
            sys.stderr.write(f"{title}: {', '.join(names)}\n")
    if len(licenses) != 2:
        sys.stderr.write(f"expected LICENSE and NOTICE in the wheel, found {licenses}\n")
    sys.stdout.write(f"{len(held)} files, {sum(name.endswith('.sql') for name in held)} of them SQL\n")
    return 1 if missing or foreign or len(licenses) != 2 else 0


if __name__ == "__main__":
    sys.exit(main())
