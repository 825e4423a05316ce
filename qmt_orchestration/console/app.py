"""The console's routes. Reading needs nothing; every change needs the token and is logged."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import redis
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from qmt_orchestration.client import dagster, registry
from qmt_orchestration.client.newest import DEFAULT_SYMBOL
from qmt_orchestration.console.guard import SameOrigin, SecurityHeaders, allowed_hosts, may_change
from qmt_orchestration.console.live import Live
from qmt_orchestration.console.quotes import NoSuchSymbol, Quotes
from qmt_orchestration.console.report import plots, report
from qmt_orchestration.market.calendar import is_trading_day
from qmt_orchestration.services import desired
from qmt_orchestration.services.metrics import make_registry
from qmt_orchestration.services.registry import UnknownService
from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import fields
from qmt_orchestration.texts import catalogue

Handler = Callable[[Request], Awaitable[Response]]

log = logging.getLogger(__name__)

MAX_VIEWERS: Final = 100
MAX_BODY: Final = 4_096
_REFUSAL_SECONDS: Final = 0.5  # a wrong token costs time: guessing is slow
_STATIC: Final = Path(str(files("qmt_orchestration.console").joinpath("static")))


class Console:
    """The handlers of the routes, over *live* (started and stopped by the caller)."""

    def __init__(self, settings: Settings, live: Live, stopping: Callable[[], bool]) -> None:
        self._settings, self._live, self._stopping = settings, live, stopping
        self._quotes = Quotes(live)
        self._viewers: set[object] = set()
        self._metrics = make_registry(settings, live.redis, warehouse=live.warehouse)

    def routes(self) -> list[BaseRoute]:
        """Every route."""
        return [
            Route("/", self._page("index.html")),
            Route("/report", self._page("report.html")),
            Route("/api/about", self._about),
            Route("/api/state", self._state),
            Route("/api/events", self._events),
            Route("/api/report", self._of_day(report)),
            Route("/api/report/plots", self._of_day(plots)),
            Route("/api/runs/{run}", self._run_progress),
            Route("/api/quote", self._quote),
            Route("/api/search", self._search),
            Route("/metrics", self._prometheus),
            Route("/api/login", self._login, methods=["POST"]),
            Route("/api/days/{name}", self._change(self._launch), methods=["POST"]),
            Route("/api/services/{name}", self._change(self._command_service), methods=["POST"]),
            Route("/api/clients/{name}", self._change(self._command_client), methods=["POST"]),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ]

    def _page(self, name: str) -> Handler:
        async def page(_: Request) -> Response:
            return FileResponse(_STATIC / name, media_type="text/html; charset=utf-8")

        return page

    async def _about(self, _: Request) -> Response:
        settings = self._settings
        token = settings.console_token
        about = {
            "dagster": settings.dagster_base_url.rstrip("/") or f"http://127.0.0.1:{settings.dagster_port}",
            "changes": bool(token and token.get_secret_value()),
            "symbol": DEFAULT_SYMBOL,
            "language": settings.language,
            "texts": catalogue("console"),
        }
        return JSONResponse(about)

    async def _state(self, _: Request) -> Response:
        return JSONResponse(self._live.snapshot)

    async def _events(self, _: Request) -> Response:
        if len(self._viewers) >= MAX_VIEWERS:
            return _error(503, f"{MAX_VIEWERS} viewers are connected already")
        events = _events(self._live, self._viewers, self._stopping)
        return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    def _of_day(self, read: Callable[[Live, date], dict[str, Any]]) -> Handler:
        async def of_day(request: Request) -> Response:
            try:
                day = date.fromisoformat(request.query_params.get("day", ""))
            except ValueError:
                return _error(400, "expected day=YYYY-MM-DD")
            if not 1990 <= day.year <= 2100:
                return _error(400, "expected a day of the years 1990 to 2100")
            return JSONResponse(fields.finite(await run_in_threadpool(read, self._live, day)))

        return of_day

    async def _run_progress(self, request: Request) -> Response:
        try:
            found = await run_in_threadpool(dagster.progress, self._settings, request.path_params["run"][:64])
        except LookupError as error:
            return _error(404, str(error))
        return JSONResponse(found)

    async def _quote(self, request: Request) -> Response:
        symbol = request.query_params.get("symbol", "").strip().upper() or DEFAULT_SYMBOL
        return JSONResponse(fields.finite(await run_in_threadpool(self._quotes.quote, symbol)))

    async def _search(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._quotes.search, request.query_params.get("q", "")[:40]))

    async def _prometheus(self, _: Request) -> Response:
        return Response(await run_in_threadpool(generate_latest, self._metrics), media_type=CONTENT_TYPE_LATEST)

    async def _login(self, request: Request) -> Response:
        return await self._refused(request) or Response(status_code=204)

    async def _refused(self, request: Request) -> Response | None:
        if not (reason := may_change(request, self._settings)):
            return None
        log.warning("console: %s %s refused: %s", request.method, _shown(request), reason)
        await asyncio.sleep(_REFUSAL_SECONDS)
        return _error(403 if reason.startswith("read-only") else 401, reason)

    def _change(self, command: Callable[[str, str], Any]) -> Handler:
        """A handler that runs *command* (name, action) for requests with the token."""

        async def change(request: Request) -> Response:
            if refused := await self._refused(request):
                return refused
            name, body = request.path_params["name"], await _body(request)
            try:
                action = fields.require_text(fields.require_json_object({"body": body}, "body"), "action", 20)
                answer = await run_in_threadpool(command, name, action)
            except (UnknownService, registry.NoSuchClient) as error:
                return _error(404, str(error))
            except fields.FieldError as error:
                return _error(400, f'refused: {error}; the body is JSON like {{"action": "stop"}}')
            except ValueError as error:
                return _error(400, f"refused: {error}")
            log.info("console: %s %s by token", action, name[:100])
            return JSONResponse(answer) if answer else Response(status_code=204)

        return change

    def _launch(self, day: str, job: str) -> dict[str, str]:
        if not is_trading_day(date.fromisoformat(day)):
            raise ValueError(f"{day} is no trading day")
        return {"run": dagster.launch(self._settings, job, day, "console")}

    def _command_service(self, name: str, action: str) -> None:
        desired.ask(self._live.redis, name, action)

    def _command_client(self, name: str, action: str) -> None:
        if action == "evict":
            registry.evict(self._live.redis, name)
        elif action in ("start", "stop"):
            registry.tell(self._live.redis, name, "run" if action == "start" else "stop")
        else:
            raise ValueError(f"expected start, stop or evict, found {action!r}")


def make_app(settings: Settings, live: Live, stopping: Callable[[], bool]) -> Starlette:
    """The web application over *live* (started and stopped by the caller)."""
    hosts = allowed_hosts(settings, settings.public_url)
    return Starlette(
        routes=Console(settings, live, stopping).routes(),
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
            Middleware(SameOrigin, allowed_hosts=hosts),
        ],
        exception_handlers={
            NoSuchSymbol: _not_found,
            redis.RedisError: _away,
            dagster.DagsterError: _away,
            Exception: _failed,
        },
    )


async def _not_found(_: Request, error: Exception) -> Response:
    return _error(404, str(error))


async def _away(_: Request, error: Exception) -> Response:
    return _error(503, f"Redis does not answer: {error}" if isinstance(error, redis.RedisError) else str(error))


async def _failed(request: Request, error: Exception) -> Response:
    log.warning("console: %s %s: %s", request.method, _shown(request), error)
    return _error(503, f"{type(error).__name__}: an engine does not answer, see the log of the console")


async def _events(live: Live, viewers: set[object], stopping: Callable[[], bool]) -> AsyncIterator[str]:
    """One event per new snapshot; the browser reconnects by itself when the console restarts."""
    me, seen = object(), -1
    viewers.add(me)
    try:
        yield "retry: 2000\n\n"
        while not stopping():
            if live.version != seen:
                seen = live.version
                yield f"data: {json.dumps(live.snapshot, ensure_ascii=False, allow_nan=False)}\n\n"
            await asyncio.sleep(0.2)
    finally:
        viewers.discard(me)


async def _body(request: Request) -> bytes:
    """The body, at most `MAX_BODY` bytes."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise HTTPException(413, f"expected a body of at most {MAX_BODY} bytes")
    return body


def _shown(request: Request) -> str:
    """The path as a log line can show it: one line of bounded length."""
    return ascii(request.url.path[:200])[1:-1]


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status)
