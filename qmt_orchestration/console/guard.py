"""What protects our pages on the network: which hosts and pages they answer to, limits, headers, who may change things.

Host names are checked by Starlette's ``TrustedHostMiddleware`` (`allowed_hosts`).
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Sequence
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qmt_orchestration.console.connections import MAX_HEADER_BYTES
from qmt_orchestration.settings import Settings

MAX_TARGET: Final = 2_048  # bytes of path and query
MAX_HEADERS: Final = 64
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
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


class SecurityHeaders:
    """Adds the security headers to every answer, refusals included, and refuses requests beyond the limits."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

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

        app = _beyond_limits(scope) or self._app
        await app(scope, receive, guarded)


class SameOrigin:
    """Refuses what another site's page makes a browser send: only links to pages (GET navigations) are followed.

    A browser names the page in Origin and says in Sec-Fetch-Site how it relates to this address. Programs that are no
    browsers send neither and pass.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str]) -> None:
        self._app, self._hosts = app, frozenset(allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            origin = headers.get("origin", "")
            if origin and not is_own(origin, headers.get("host", ""), self._hosts):
                found = f"of {origin[:100]!r}"
            elif headers.get("sec-fetch-site") in ("cross-site", "same-site") and not (
                scope["type"] == "http" and scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
            ):
                found = "of another site"
            else:
                await self._app(scope, receive, send)
                return
            refusal = PlainTextResponse(f"refused: the request comes from the page {found}, not from this one", 403)
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)


def allowed_hosts(settings: Settings, *more: str) -> list[str]:
    """Host names our pages answer to: loopback's, those of ``QMT_CONSOLE_HOSTS``, and the hosts of the URLs *more*."""
    names = [urlsplit(url).hostname or "" for url in more]
    return ["127.0.0.1", "localhost", "[::1]", *(name.lower() for name in (*settings.console_hosts, *names) if name)]


def _beyond_limits(scope: Scope) -> PlainTextResponse | None:
    """The refusal of a request whose path, query or headers are larger than any of our page's."""
    target = len(scope.get("raw_path", b"")) + len(scope.get("query_string", b""))
    if target > MAX_TARGET:
        return PlainTextResponse(f"expected a path of at most {MAX_TARGET} bytes, found {target}", 414)
    headers = scope["headers"]
    size = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        found = f"{len(headers)} of {size} bytes"
        return PlainTextResponse(
            f"expected at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes, found {found}", 431
        )
    return None


def may_change(request: Request, settings: Settings) -> str:
    """Empty if the request carries the token; else why not. Without a configured token no request may."""
    if settings.console_token is None or not settings.console_token.get_secret_value():
        return "read-only: no token is configured (QMT_CONSOLE_TOKEN)"
    given = request.headers.get(TOKEN_HEADER, "")
    if not hmac.compare_digest(given.encode(), settings.console_token.get_secret_value().encode()):
        return f"wrong or missing token (header {TOKEN_HEADER})"
    return ""


def is_own(origin: str, host: str, hosts: Collection[str]) -> bool:
    """Whether a browser's Origin is this server: the host it was asked under, or its name before a proxy."""
    try:
        parts = urlsplit(origin)
        name = parts.hostname or ""
    except ValueError:
        return False
    return parts.netloc.lower() == host.lower() or (name not in _LOOPBACK and name in hosts)
