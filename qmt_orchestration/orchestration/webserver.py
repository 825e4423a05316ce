"""Dagster's webserver with two checks that it lacks: which host it is asked under, and which page makes a browser ask.

Dagster's own page can launch runs, and answers every client that reaches its port: another site could rebind its name
to loopback, or send a mutation as the address of an image. ``python -m qmt_orchestration.orchestration.webserver``
takes the options of ``dagster-webserver``. Host names: loopback's, `QMT_CONSOLE_HOSTS`, that of `QMT_DAGSTER_BASE_URL`.
"""

from __future__ import annotations

import dagster_webserver.app
from dagster_webserver.cli import cli
from dagster_webserver.webserver import DagsterWebserver
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from qmt_orchestration.console.guard import SameOrigin, allowed_hosts
from qmt_orchestration.settings import get_settings


class GuardedWebserver(DagsterWebserver):  # type: ignore[type-arg]
    """Dagster's application behind `TrustedHostMiddleware` and `SameOrigin`, websockets included."""

    def build_middleware(self) -> list[Middleware]:
        """The checks, then Dagster's own middleware."""
        settings = get_settings()
        hosts = allowed_hosts(settings, settings.dagster_base_url)
        return [
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
            Middleware(SameOrigin, allowed_hosts=hosts),
            *super().build_middleware(),
        ]


def main() -> None:
    """Dagster's command with our application: it looks the class up under this name."""
    dagster_webserver.app.DagsterWebserver = GuardedWebserver  # type: ignore[attr-defined]
    cli(auto_envvar_prefix="DAGSTER_WEBSERVER")


if __name__ == "__main__":
    main()
