"""The statements of the client library."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def load_sql(name: str) -> str:
    """The statement in the client library's ``queries/<name>.sql``."""
    return files("qmt_orchestration.client").joinpath(f"queries/{name}.sql").read_text("utf-8")
