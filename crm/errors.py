"""What can go wrong, each with the status code of its answer; `web.answers` makes the answer of it."""

from collections.abc import Mapping, Sequence
from typing import Any


class StartupError(Exception):
    """The service can't start; its text is the one line that says why."""


class NotAlone(Exception):
    """What the transaction has to do can't be done while it shares the lock (see `db.base`)."""


class DomainError(Exception):
    """A request that can't be done; `status_code`, `detail` and `headers` are the answer."""

    status_code: int
    headers: Mapping[str, str] = {}

    def __init__(self, detail: str | list[dict[str, Any]]) -> None:
        super().__init__(detail)
        self.detail = detail


class NotFound(DomainError):
    """What a path or a body names is not there."""

    status_code = 404

    def __init__(self, what: str, key: object) -> None:
        super().__init__(f"{what} {key!r} not found")


class Unauthorized(DomainError):
    """No key, or none that is known."""

    status_code = 401


class Forbidden(DomainError):
    """The key's role has no part in this."""

    status_code = 403


class TooManyRequests(DomainError):
    """Of this key, or wrong keys of this address; retry_after: seconds."""

    status_code = 429

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.headers = {"Retry-After": str(retry_after)}


class Conflict(DomainError):
    """Clashes with the present state; the detail names the thing it clashes with, with its id."""

    status_code = 409


class Unprocessable(DomainError):
    """Well-formed, but unusable: a list of (location, message), in FastAPI's own shape for 422."""

    status_code = 422

    def __init__(self, problems: Sequence[tuple[tuple[str | int, ...], str]]) -> None:
        super().__init__([{"type": "unusable", "loc": list(loc), "msg": msg} for loc, msg in problems])


class Unavailable(DomainError):
    """The database is away at a moment that leaves open whether the request was carried out."""

    status_code = 503
