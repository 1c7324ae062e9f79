"""Errors as answers: how they are told to the caller (`{"detail": ...}`), and how they are documented."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy.exc import InternalError, OperationalError, TimeoutError
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from crm.errors import DomainError
from crm.web.auth import authenticate

RETRY_AFTER = 1  # seconds
log = logging.getLogger(__name__)
logging.getLogger("psycopg").setLevel(logging.ERROR)  # it warns of each connection that breaks; we answer with 503


class ErrorMessage(BaseModel):
    detail: str


DESCRIPTIONS = {
    401: "No key and no session, or one that is not known, was revoked or has ended.",
    403: "Not for a key of this role; with a session not for other sites; without keys not from another machine.",
    404: "Not there; the detail says what.",
    409: "Clashes with the present state; the detail names what it clashes with.",
    413: "The body is larger than 256 KiB.",
    429: "Too many requests of this key, or wrong keys of this address: try again after `Retry-After` seconds.",
    501: "Not installed; the detail says what to install.",
    503: "The database is away, full or busy. Nothing was changed, unless the detail says that it may have been: "
    "try again after `Retry-After` seconds, safely with an `event_id`.",
}


def responses(*status_codes: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of the errors that a route can answer besides 422."""
    return {code: {"model": ErrorMessage, "description": DESCRIPTIONS[code]} for code in status_codes}


def add_handlers(app: FastAPI) -> None:
    """Makes the app answer every error of this module, and every one of FastAPI's, as `{"detail": ...}`."""

    @app.exception_handler(DomainError)
    async def domain_error(_: Request, error: DomainError) -> Response:
        return answer(error.status_code, error.detail, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid_request(request: Request, error: RequestValidationError) -> Response:
        """FastAPI's own list without `input` and `ctx`: they may not be expressible in JSON (NaN, a lone surrogate)."""
        problems = [{"type": e["type"], "loc": e["loc"], "msg": e["msg"]} for e in error.errors()]
        if problems[0]["loc"] == ("body",) and "json" not in request.headers.get("content-type", ""):
            problems[0]["msg"] = "send the body as JSON, with the header Content-Type: application/json"
        return await malformed(request, problems)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == 400 and error.__cause__ is not None:  # FastAPI's word for a body that is no JSON
            problem = {"type": "json_invalid", "loc": ["body"], "msg": "no JSON document in UTF-8, or nested too deep"}
            return await malformed(request, [problem])
        if error.status_code == 405:  # Starlette names only the methods of the first route with this path
            headers["Allow"] = _allowed_methods(request) or headers["Allow"]
        return answer(error.status_code, error.detail, headers)

    @app.exception_handler(OperationalError)
    @app.exception_handler(InternalError)
    @app.exception_handler(TimeoutError)
    async def database_unavailable(_: Request, error: OperationalError | InternalError | TimeoutError) -> Response:
        log.warning("database unavailable: %s", " ".join(str(getattr(error, "orig", error)).split()))
        return answer(503, "the database is not available at the moment, nothing was changed: try again")


async def malformed(request: Request, problems: list[dict[str, Any]]) -> Response:
    """A 422, but only for who may call: FastAPI reads the body before it asks who calls. What this raises is answered
    by the handlers around this one."""
    await authenticate.confirm(request)
    return answer(422, problems)


def _allowed_methods(request: Request) -> str:
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    paths = request.app.openapi()["paths"]
    templates = [path] if path in paths else [known for known in paths if compile_path(known)[0].match(path)]
    return ", ".join(sorted(method.upper() for template in templates for method in paths[template]))


def answer(status_code: int, detail: object, headers: Mapping[str, str] | None = None) -> Response:
    """An error as `{"detail": ...}`."""
    # ASCII, because a location may quote a lone surrogate of the request, which UTF-8 can't carry.
    body = json.dumps({"detail": detail}, ensure_ascii=True, separators=(",", ":"))
    own = {"Retry-After": str(RETRY_AFTER)} if status_code == 503 else {}
    own |= {"WWW-Authenticate": "APIKey"} if status_code == 401 else {}
    return Response(body, status_code, own | dict(headers or {}), media_type="application/json")
