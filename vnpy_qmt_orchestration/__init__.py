"""What vn.py imports for ``"database.name"`` and ``"datafeed.name"`` of ``qmt_orchestration`` (docs/export.md)."""

from qmt_orchestration.export.vnpy import Database, Datafeed

__all__ = ["Database", "Datafeed"]
