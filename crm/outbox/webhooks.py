"""Signed webhooks, as Standard Webhooks specifies them, and where they may go.

Which addresses are allowed is said here; `client` connects to no others.
"""

import asyncio
import base64
import json
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from standardwebhooks import Webhook

from crm.fields import utcnow
from crm.settings import networks

TIMEOUT = 15  # seconds for all of it: the look-up of the name, the connection, the answer
NOT_ALLOWED = "its address is not a public one, nor in a network of CRM_WEBHOOK_ALLOW"
NAT64, GLOBAL = IPv6Network("64:ff9b::/96"), IPv6Network("2000::/3")
FINAL = {status for status in range(400, 500) if status not in (408, 425, 429)}  # the same request would fail again
Address = IPv4Address | IPv6Address


class Failed(Exception):
    """It was not taken; the text says why, without any words of the receiver.

    is_final: it would not be the next time either. retry_after: seconds that the receiver asks to wait.
    """

    def __init__(self, why: str, status: int | None = None, retry_after: float = 0) -> None:
        super().__init__(why)
        self.status, self.retry_after = status, retry_after
        self.is_final, self.is_gone = status in FINAL, status == 410


class Message(NamedTuple):
    """What is sent, the same at each try."""

    id: str
    body: str


def new_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def _target_of(address: Address) -> Address:
    """The IPv4 address that an IPv6 address leads to in the end, if it is one of those forms."""
    if isinstance(address, IPv6Address):
        embedded = IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else None
        return address.ipv4_mapped or address.sixtofour or embedded or address
    return address


def is_public(address: Address) -> bool:
    address = _target_of(address)
    in_use = address in GLOBAL if isinstance(address, IPv6Address) else not address.is_reserved
    return address.is_global and in_use and not address.is_multicast


def is_allowed(address: Address, allow: str | None, is_secure: bool) -> bool:
    """Public addresses for https only, the others if a network names them."""
    named = any(one in network for one in (address, _target_of(address)) for network in networks(allow))
    return named or (is_secure and is_public(address))


def check_url(target: str, allow: str | None) -> None:
    """Raises ValueError, whose text says what is wrong, for a URL that could not be sent to."""
    url = _split(target)
    if url.scheme == "http" and not allow:
        raise ValueError("must begin with https:// (http only within networks of CRM_WEBHOOK_ALLOW)")
    try:
        address = ip_address(url.hostname or "")
    except ValueError:
        return  # a name, which is looked up when it is connected to
    if not is_allowed(address, allow, url.scheme == "https"):
        raise ValueError("the address is not a public one, nor in a network of CRM_WEBHOOK_ALLOW")


def _split(target: str) -> SplitResult:
    if not target.isascii() or not target.isprintable() or " " in target:
        raise ValueError("must be a URL of ASCII characters without spaces: encode the others")
    try:
        url = urlsplit(target)
        _ = url.port
    except ValueError:
        raise ValueError("is not a URL") from None
    labels = (url.hostname or "").removesuffix(".").split(".")
    if url.fragment or len(".".join(labels)) > 253 or not all(1 <= len(label) <= 63 for label in labels):
        raise ValueError("must be a URL with a host, and without a fragment")
    return url


def mask(target: str) -> str:
    """Without what may be secret in it: user, password, path (the whole secret of Slack and Discord) and query."""
    url = urlsplit(target)
    host = url.netloc.rpartition("@")[2]
    user, query = "****@" if "@" in url.netloc else "", "?****" if url.query else ""
    return f"{url.scheme}://{user}{host}{'/****' if len(url.path) > 1 else url.path}{query}"


class Webhooks:
    """Signs webhooks and sends them."""

    def __init__(self, allow: str | None) -> None:
        self._allow = allow
        self._client: Any = None  # `client.Client`, once there is something to send
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _open(self) -> Any:
        async with self._opening:
            if self._client is None:
                module = await asyncio.to_thread(import_module, "crm.outbox.client")
                self._client = module.Client(self._allow)
        return self._client

    async def send(self, target: str, message: Message, secrets: Iterable[str]) -> int:
        """The status, 2xx. Raises Failed, whatever went wrong: what is not recorded would be sent again for ever."""
        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._post(_split(target), message, secrets)
        except Failed:
            raise
        except TimeoutError:
            raise Failed(f"no answer within {TIMEOUT} seconds") from None
        except Exception as error:
            raise Failed(f"failed: {type(error).__name__}") from None

    async def _post(self, url: SplitResult, message: Message, secrets: Iterable[str]) -> int:
        now = utcnow()
        signatures = (Webhook(secret).sign(message.id, now, message.body) for secret in secrets)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "mini-crm",
            "webhook-id": message.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }
        if url.username is not None:
            user = unquote_to_bytes(url.netloc.rpartition("@")[0])
            headers["Authorization"] = f"Basic {base64.b64encode(user).decode()}"
        host, query = url.netloc.rpartition("@")[2], f"?{url.query}" if url.query else ""
        client = self._client or await self._open()
        status, retry_after = await client.post(
            f"{url.scheme}://{host}{url.path or '/'}{query}", headers, message.body.encode()
        )
        if not 200 <= status < 300:
            raise Failed(f"answered {status}", status, _seconds(retry_after))
        return int(status)


def _seconds(retry_after: str) -> float:
    """A number, or a date; 0 for anything else."""
    if retry_after.isdecimal():
        return float(retry_after[:9])
    try:
        return max(0.0, (parsedate_to_datetime(retry_after).astimezone(UTC) - utcnow()).total_seconds())
    except (ValueError, OverflowError):
        return 0


def message_of_test(delivery_id: int, created_at: datetime) -> Message:
    """What the button sends, which is no event."""
    timestamp = created_at.isoformat().replace("+00:00", "Z")
    body = {"id": delivery_id, "type": "test", "timestamp": timestamp, "data": {}}
    return Message(f"test_{delivery_id}", json.dumps(body, separators=(",", ":")))
