"""What Dagster loads: ``defs``, everything that `build_defs` puts together, for this deployment."""

from __future__ import annotations

from qmt_orchestration.orchestration.build import build_defs

defs = build_defs()
