"""What stands between the console and the network: which hosts it answers to, its headers, who may change things."""

from __future__ import annotations

import hmac
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qmt_orchestration.settings import Settings

TOKEN_HEADER: Final = "X-Console-Token"  # noqa: S105  # a name, no secret
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """Refuses unknown Host headers (a page elsewhere could rebind its name to loopback), adds the security headers."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._hosts = {"127.0.0.1", "localhost", "[::1]", *(host.lower() for host in settings.console_hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                static = scope["path"].startswith("/static/vendor/")
                headers["Cache-Control"] = "public, max-age=604800" if static else "no-store"
            await send(message)

        host = Headers(scope=scope).get("host", "")
        name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
        if name.lower() not in self._hosts:
            refusal = PlainTextResponse(
                f"unknown host {name[:100]!r}: open http://127.0.0.1, or add the name to QMT_CONSOLE_HOSTS", 421
            )
            await refusal(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)


def may_change(request: Request, settings: Settings) -> str:
    """Empty if the request carries the token and comes from our own page (or no page); else why not.

    Without a configured token nobody may.
    """
    if settings.console_token is None or not settings.console_token.get_secret_value():
        return "read-only: no token is configured (QMT_CONSOLE_TOKEN)"
    origin = request.headers.get("origin", "")
    if origin and not _own(origin, request.headers.get("host", ""), settings):
        return f"refused: the request comes from the page of {origin[:100]!r}, not from this console"
    given = request.headers.get(TOKEN_HEADER, "")
    if not hmac.compare_digest(given.encode(), settings.console_token.get_secret_value().encode()):
        return f"wrong or missing token (header {TOKEN_HEADER})"
    return ""


def _own(origin: str, host: str, settings: Settings) -> bool:
    """Whether a browser's Origin is this console: the host it was asked under, or its name before a proxy."""
    parts = urlsplit(origin)
    return parts.netloc.lower() == host.lower() or (parts.hostname or "") in {h.lower() for h in settings.console_hosts}
