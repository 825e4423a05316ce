"""The console's routes. Reading needs nothing; every change needs the token and is logged."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
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
from starlette.routing import Mount, Route
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

log = logging.getLogger(__name__)

MAX_VIEWERS: Final = 100
MAX_BODY: Final = 4_096
_REFUSAL_SECONDS: Final = 0.5  # a wrong token costs time: guessing is slow
_STATIC: Final = Path(str(files("qmt_orchestration.console").joinpath("static")))


def make_app(settings: Settings, live: Live, stopping: Callable[[], bool]) -> Starlette:
    """The web application over *live* (started and stopped by the caller)."""
    quotes = Quotes(live)
    viewers: set[object] = set()
    registry_of_metrics = make_registry(settings, live.redis, warehouse=live.warehouse)

    async def page(request: Request) -> Response:
        return FileResponse(_STATIC / "index.html", media_type="text/html; charset=utf-8")

    async def about(request: Request) -> Response:
        base = settings.dagster_base_url.rstrip("/") or f"http://127.0.0.1:{settings.dagster_port}"
        token = settings.console_token
        return JSONResponse(
            {
                "dagster": base,
                "changes": bool(token and token.get_secret_value()),
                "symbol": DEFAULT_SYMBOL,
                "language": settings.language,
                "texts": catalogue("console"),
            }
        )

    async def report_page(request: Request) -> Response:
        return FileResponse(_STATIC / "report.html", media_type="text/html; charset=utf-8")

    async def day_report(request: Request) -> Response:
        return await _of_day(request, lambda day: report(live, day))

    async def day_plots(request: Request) -> Response:
        return await _of_day(request, lambda day: plots(live, day))

    async def make_day(request: Request) -> Response:
        return await _change(request, settings, lambda day, job: _launch(settings, day, job))

    async def run_progress(request: Request) -> Response:
        try:
            return JSONResponse(await run_in_threadpool(dagster.progress, settings, request.path_params["run"][:64]))
        except LookupError as error:
            return _error(404, str(error))
        except dagster.DagsterError as error:
            return _error(503, str(error))

    async def state(request: Request) -> Response:
        return JSONResponse(live.snapshot)

    async def events(request: Request) -> Response:
        if len(viewers) >= MAX_VIEWERS:
            return _error(503, f"{MAX_VIEWERS} viewers are connected already")
        return StreamingResponse(
            _events(live, viewers, stopping), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    async def quote(request: Request) -> Response:
        symbol = request.query_params.get("symbol", "").strip().upper() or DEFAULT_SYMBOL
        try:
            return JSONResponse(fields.finite(await run_in_threadpool(quotes.quote, symbol)))
        except NoSuchSymbol as error:
            return _error(404, str(error))

    async def search(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(quotes.search, request.query_params.get("q", "")[:40]))

    async def metrics(request: Request) -> Response:
        return Response(await run_in_threadpool(generate_latest, registry_of_metrics), media_type=CONTENT_TYPE_LATEST)

    async def login(request: Request) -> Response:
        return await _refused(request, settings) or Response(status_code=204)

    async def change_service(request: Request) -> Response:
        return await _change(request, settings, lambda name, action: _tell_service(live.redis, name, action))

    async def change_client(request: Request) -> Response:
        return await _change(request, settings, lambda name, action: _tell_client(live.redis, name, action))

    async def failed(request: Request, error: Exception) -> Response:
        log.warning("console: %s %s: %s", request.method, _shown(request), error)
        return _error(503, f"{type(error).__name__}: an engine does not answer, see the log of the console")

    hosts = allowed_hosts(settings, settings.public_url)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/api/about", about),
            Route("/api/state", state),
            Route("/api/events", events),
            Route("/report", report_page),
            Route("/api/report", day_report),
            Route("/api/report/plots", day_plots),
            Route("/api/days/{name}", make_day, methods=["POST"]),
            Route("/api/runs/{run}", run_progress),
            Route("/api/quote", quote),
            Route("/api/search", search),
            Route("/metrics", metrics),
            Route("/api/login", login, methods=["POST"]),
            Route("/api/services/{name}", change_service, methods=["POST"]),
            Route("/api/clients/{name}", change_client, methods=["POST"]),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ],
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
            Middleware(SameOrigin, allowed_hosts=hosts),
        ],
        exception_handlers={Exception: failed},
    )


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


async def _of_day(request: Request, read: Callable[[date], dict[str, Any]]) -> Response:
    try:
        day = date.fromisoformat(request.query_params.get("day", ""))
    except ValueError:
        return _error(400, "expected day=YYYY-MM-DD")
    if not 1990 <= day.year <= 2100:
        return _error(400, "expected a day of the years 1990 to 2100")
    return JSONResponse(fields.finite(await run_in_threadpool(read, day)))


async def _refused(request: Request, settings: Settings) -> Response | None:
    if not (reason := may_change(request, settings)):
        return None
    log.warning("console: %s %s refused: %s", request.method, _shown(request), reason)
    await asyncio.sleep(_REFUSAL_SECONDS)
    return _error(403 if reason.startswith("read-only") else 401, reason)


async def _change(request: Request, settings: Settings, tell: Callable[[str, str], Any]) -> Response:
    if refused := await _refused(request, settings):
        return refused
    name = request.path_params["name"]
    try:
        action = fields.require_text(fields.require_json_object({"body": await _body(request)}, "body"), "action", 20)
        answer = await run_in_threadpool(tell, name, action)
    except (UnknownService, registry.NoSuchClient) as error:
        return _error(404, str(error))
    except redis.RedisError as error:
        return _error(503, f"Redis does not answer: {error}")
    except dagster.DagsterError as error:
        return _error(503, str(error))
    except fields.FieldError as error:
        return _error(400, f'refused: {error}; the body is JSON like {{"action": "stop"}}')
    except ValueError as error:
        return _error(400, f"refused: {error}")
    log.info("console: %s %s by token", action, name[:100])
    return JSONResponse(answer) if answer else Response(status_code=204)


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


def _launch(settings: Settings, day: str, job: str) -> dict[str, str]:
    if not is_trading_day(date.fromisoformat(day)):
        raise ValueError(f"{day} is no trading day")
    return {"run": dagster.launch(settings, job, day, "console")}


def _tell_service(client: Any, name: str, action: str) -> None:
    if action == "restart":
        desired.ask_restart(client, name)
    elif action == "start":
        desired.set_desired(client, name, "running")
    elif action == "stop":
        desired.set_desired(client, name, "stopped")
    else:
        raise ValueError(f"expected start, stop or restart, found {action!r}")


def _tell_client(client: Any, name: str, action: str) -> None:
    if action == "evict":
        registry.evict(client, name)
    elif action == "start":
        registry.tell(client, name, "run")
    elif action == "stop":
        registry.tell(client, name, "stop")
    else:
        raise ValueError(f"expected start, stop or evict, found {action!r}")


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status)
