"""Exit codes of a service process besides its own; names and numbers as in sysexits.h."""

from __future__ import annotations

from typing import Final

EXIT_UNEXPECTED: Final = 70  # run() raised
EXIT_ALREADY: Final = 73  # the same service of the same data_dir is running
EXIT_LEASE_LOST: Final = 75  # another instance works now; started again, this one waits as its stand-by
EXIT_CONFIG: Final = 78  # a setting is wrong or a module is missing
