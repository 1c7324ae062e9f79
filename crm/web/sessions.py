"""Sessions of browsers: a random token in a cookie in the place of a key, with exactly the rights of that key.

A session ends twelve hours after its last use, and with its key: both are looked up together, at each request.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from ipaddress import ip_address, ip_network
from time import monotonic
from typing import Any

import sqlalchemy
from fastapi import Request, Response
from fastapi.security import APIKeyCookie
from sqlalchemy import bindparam, update
from sqlmodel import col
from sqlmodel.sql.sqltypes import UTCDateTime

from crm.errors import Forbidden, TooManyRequests, Unauthorized
from crm.web.tables import ApiKey, BrowserSession

COOKIE = "crm_session"
KEPT_BY_BROWSER = 400 * 24 * 3600  # seconds, the most that browsers allow; when it ends is for the service to say
LIFETIME = timedelta(hours=12)  # from the last use
WRONG_TRIES = 10  # in a minute
MOST_ADDRESSES = 10_000

_NOW = bindparam("now", type_=UTCDateTime())
# With what its key may do; nothing of it for the key of the settings, and for one that was revoked.
SESSION: Any = (
    sqlalchemy.select(
        *(col(BrowserSession.id), col(BrowserSession.last_used_at), col(BrowserSession.key_hash)),
        *(col(ApiKey.role), col(ApiKey.id).label("key_id"), col(ApiKey.operator_id)),
    )
    .outerjoin(ApiKey, col(ApiKey.hash) == col(BrowserSession.key_hash))
    .where(col(BrowserSession.hash) == bindparam("hash"), col(BrowserSession.expires_at) > _NOW)
)
RENEW = (
    update(BrowserSession)
    .where(col(BrowserSession.id) == bindparam("session"))
    .values(last_used_at=_NOW, expires_at=bindparam("end", type_=UTCDateTime()))
)


class SessionCookie(APIKeyCookie):
    """For the OpenAPI document only: the cookie is read by `web.auth`, where no key is sent."""

    async def __call__(self) -> None:  # type: ignore[override]
        pass


cookie = SessionCookie(name=COOKIE, description="Instead of a key: from `POST /session`, for the page.")


def set_cookie(request: Request, response: Response, token: str) -> None:
    """An empty token takes the cookie away."""
    response.set_cookie(
        COOKIE,
        token,
        max_age=KEPT_BY_BROWSER if token else 0,
        path=request.scope.get("root_path", "").rstrip("/") or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def check_origin(request: Request, is_browser: bool = True) -> None:
    """Raises Forbidden unless the browser says that the page itself sends this, and not that of another site.

    is_browser: only a browser can have sent it. Else one that says nothing of it is let through.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is None and origin is None:
        is_ours = not is_browser
    elif site is not None:
        is_ours = site == "same-origin"
    else:
        is_ours = origin is not None and re.sub(r"^https?://", "", origin) == request.headers.get("host")
    if not is_ours:
        raise Forbidden("without a key only the page itself may change something: Sec-Fetch-Site or Origin must say so")


class WrongTries:
    """Wrong keys at the sign-in, by address. Each process counts for itself, and for the newest addresses only."""

    def __init__(self) -> None:
        self._tries: dict[str, tuple[float, int]] = {}  # when the minute began, and how many in it; oldest first

    @contextmanager
    def watch(self, address: str) -> Iterator[None]:
        """Around a try: it counts if it ends with Unauthorized, and meanwhile, so that many at once are no way around.

        Raises TooManyRequests after too many, until their minute is over.
        """
        address, now = network_of(address), monotonic()
        begin, tries = self._tries.get(address, (now, 0))
        if tries == 0 or now - begin >= 60:
            begin, tries = now, 0
        if tries >= WRONG_TRIES:
            raise TooManyRequests(f"{WRONG_TRIES} wrong keys in a minute: wait", retry_after=int(begin + 60 - now) + 1)
        if tries == 0:
            self._tries.pop(address, None)
            if len(self._tries) >= MOST_ADDRESSES:
                del self._tries[next(iter(self._tries))]
        self._tries[address] = begin, tries + 1
        is_wrong = False
        try:
            yield
        except Unauthorized:
            is_wrong = True
            raise
        finally:
            if not is_wrong and address in self._tries:
                begin, tries = self._tries[address]
                self._tries[address] = begin, tries - 1


def network_of(host: str) -> str:
    """What one caller may have many addresses of: in IPv6 the first half."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or (ip_network((address, 64), strict=False) if address.version == 6 else address))
