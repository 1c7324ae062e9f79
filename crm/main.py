"""The service: `uvicorn crm.main:app`."""

import asyncio
import gc
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import FastAPI, Security
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import FileResponse
from fastapi.routing import iter_route_contexts
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from sqlalchemy import Connection

import crm
from crm.api import (
    candidates,
    contacts,
    events,
    exports,
    health,
    keys,
    leads,
    merging,
    metrics,
    operators,
    personal_data,
    registration,
    series,
    sessions,
    shifts,
    simulation,
    sources,
    stats,
    subscriptions,
)
from crm.day.clock import keep_time
from crm.day.due import catch_up
from crm.day.shifts import recompute_shifts
from crm.db import open_database
from crm.fields import utcnow
from crm.outbox.feed import Feed
from crm.outbox.sender import Sender
from crm.queue import Distributor
from crm.settings import Settings, load_settings
from crm.web import answers, auth
from crm.web.deps import Service
from crm.web.logs import set_up_logs
from crm.web.requests import Requests, request_id
from crm.web.sessions import cookie
from crm.web.stopping import when_stopping

log = logging.getLogger(__name__)
PAGE = Path(__file__).parent / "page"

# exports and merging come first: else their paths would be taken for ids of a contact and a lead.
OTHERS = (
    *(exports, merging, contacts, operators, shifts, sources, candidates, simulation, leads, personal_data),
    *(events, stats, series, subscriptions, keys, metrics, sessions),
)

DESCRIPTION = """
Takes incoming contacts from many bots, finds the **lead** who wrote, and hands each contact to one **operator**:
by the operator's weight for that source, and never past the operator's load limit.

To try it here, execute in this order: *Add an operator*, *Add a source*, *Add an operator to a source*,
*Register a contact*. On an empty database each example works as it stands.

An admin's GET of contacts, sources or statistics with the header `Cache-Control: max-age=2` may get an answer that is
that many seconds old; without it, it is always of now.
"""
TAGS = [
    {"name": "Operators", "description": "Who handles contacts, and how many at once."},
    {"name": "Sources", "description": "The bots, and the weight of each operator at each."},
    {"name": "Contacts", "description": "A lead writes: one POST per conversation."},
    {"name": "Leads", "description": "The customers, over all sources."},
    {"name": "Events", "description": "What happened to contacts, for those who want to be told."},
    {"name": "Subscriptions", "description": "Who is told what happens: webhooks, and messages to people."},
    {"name": "Statistics", "description": "Counted from the rows."},
    {"name": "Keys", "description": "Who may call what; see Authorize."},
    {"name": "Sessions", "description": "Sign-in for browsers."},
    {"name": "Service", "description": "Is it up, and what does it do?"},
]


def create_app(settings: Settings | None = None, rng: random.Random | None = None) -> FastAPI:
    """settings: by default those of the environment. rng: draws the operators; by default seeded by the system."""
    app = FastAPIOffline(  # /docs without other hosts
        redoc_url=None,  # it loads its logo from one
        title="Mini-CRM",
        version=crm.__version__,
        description=DESCRIPTION,
        openapi_tags=TAGS,
        lifespan=lambda app: _running(app, settings or load_settings(), rng or random.Random()),
        generate_unique_id_function=lambda route: route.name,
    )
    app.add_middleware(Requests)
    # Around it. No validator, for that logs a line of its own for each id that it refuses.
    app.add_middleware(CorrelationIdMiddleware, generator=request_id, transformer=request_id, validator=None)
    answers.add_handlers(app)
    by_key, common = [Security(auth.authenticate)], answers.responses(401, 403, 413, 429, 503)
    app.include_router(registration.router, responses=common)  # the busiest first; asks for the caller by itself
    for module in OTHERS:
        app.include_router(module.router, dependencies=[*by_key, Security(cookie)], responses=common)
    app.include_router(sessions.sign_in, responses=common)
    app.include_router(health.router)
    app.mount("/static", GZipMiddleware(StaticFiles(directory=PAGE)))

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def get_page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    list(iter_route_contexts(app.routes))  # builds them; FastAPI would at the first request, and hold up all others
    return app


@asynccontextmanager
async def _running(app: FastAPI, settings: Settings, rng: random.Random) -> AsyncIterator[None]:
    """From the start, which opens the database and brings it up to date, to the end. Raises StartupError."""
    _allow_connections()
    database = open_database(settings.database_url, settings.busy_timeout)
    admin_key = settings.admin_key.get_secret_value() if settings.admin_key else None
    app.state.callers = auth.Callers(admin_key, settings.rate_limit)
    feed = Feed(database)
    sender = Sender(database, feed, settings.webhook_allow, settings.public_url)
    app.state.service = Service(settings, database, rng, feed, sender)
    log.info("keys are asked for" if admin_key else "no CRM_ADMIN_KEY: only callers on this machine are served")

    def begin(connection: Connection) -> None:
        recompute_shifts(connection, utcnow(), settings.time_zone)
        catch_up(connection, rng)
        Distributor(connection, rng).hand_out()  # an older version may have left what need not wait

    database.start(begin, settings.migrate)
    gc.freeze()  # what the start made lives on: going through it again would stop the service for 70 ms at times
    feed.start()
    sender.start()
    clock = asyncio.create_task(keep_time(database, rng, timedelta(minutes=settings.overdue_minutes)))
    try:
        with when_stopping(feed.close):
            yield
    finally:
        await sender.stop()
        clock.cancel()
        await asyncio.wait([clock])
        await feed.stop()
        await database.stop()


def _allow_connections() -> None:
    """As many as the system lets this process have: most start one with 1,024 files, until it asks for more."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if 0 <= soft < 65_536:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536) if hard >= 0 else 65_536, hard))


set_up_logs()  # before the server's first line
app = create_app()
