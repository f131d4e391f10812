"""The web application: the page, its assets, and the poller that runs as long as it does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from nicegui import ui
from starlette.datastructures import MutableHeaders
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard.page import TITLE, Page
from dashboard.poller import Poller, new_client, new_monitor
from dashboard.settings import DashboardSettings

ASSETS = Path(__file__).with_name("assets")
FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16"'
    ' rx="3" fill="#0b1220"/><path d="M3 8h3l6-4M6 8h6M6 8l6 4" stroke="#5eead4" stroke-width="1.6"'
    ' fill="none"/></svg>'
)
# NiceGUI needs inline scripts and eval; nothing may come from, or go to, another host.
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval';"
        " style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:;"
        " object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class _WithHeaders:
    """Adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def build_app(settings: DashboardSettings) -> FastAPI:
    """The dashboard as an ASGI application."""
    monitor = new_monitor()

    @asynccontextmanager
    async def polling(_: FastAPI) -> AsyncIterator[None]:
        async with new_client() as client, asyncio.TaskGroup() as group:
            task = group.create_task(Poller(monitor, settings, client).run())
            yield
            task.cancel()

    app = FastAPI(lifespan=polling, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_WithHeaders)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @ui.page("/")
    async def dashboard() -> None:
        page = Page(monitor, settings.dashboard_refresh_seconds)
        await ui.context.client.connected()
        await page.meet_browser()

    app.mount("/assets", StaticFiles(directory=ASSETS))
    ui.add_head_html('<link rel="stylesheet" href="assets/style.css">', shared=True)
    ui.run_with(
        app,
        title=TITLE,
        favicon=FAVICON,
        dark=None,
        tailwind=False,
        show_welcome_message=False,
        reconnect_timeout=10.0,
    )
    return app
