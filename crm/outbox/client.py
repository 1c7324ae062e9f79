"""How a webhook is sent: over HTTP, and only to where it may go. Imported when the first one is, for it takes a while.

The address is checked when the connection is made, and that very address is connected to, so that a name can't lead
elsewhere in between. No redirects are followed, no variables of proxies heeded, nothing is unpacked.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from ipaddress import ip_address
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from crm.outbox.webhooks import NOT_ALLOWED, Failed, is_allowed

LOOKUPS = 120  # threads, one for each subscription that is told at once
MAX_ANSWER = 16 * 1024  # bytes that are read of an answer, of which only the status counts


@cache
def tls_context() -> ssl.SSLContext:
    """Who vouches for a receiver is what the system trusts. To read that takes a while, so it is done once."""
    return ssl.create_default_context()


class Guard(AbstractResolver):
    """Finds only addresses that are allowed: those that the name has at this moment."""

    def __init__(self, allow: str | None, is_secure: bool, lookups: ThreadPoolExecutor) -> None:
        self._allow, self._is_secure, self._lookups = allow, is_secure, lookups

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        def look_up() -> list[Any]:
            return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)

        try:
            found = await asyncio.get_running_loop().run_in_executor(self._lookups, look_up)
        except OSError:
            raise Failed("its name can't be looked up") from None
        allowed = [entry for entry in found if self.is_allowed(entry[4][0])]
        if not allowed:
            raise Failed(NOT_ALLOWED)
        return [
            ResolveResult(hostname=host, host=to[0], port=port, family=family, proto=proto, flags=socket.AI_NUMERICHOST)
            for family, _, proto, _, to in allowed[:4]
        ]

    def is_allowed(self, address: str) -> bool:
        return is_allowed(ip_address(address), self._allow, self._is_secure)

    def make_socket(self, info: Any) -> socket.socket:
        """Of what is about to be connected to, also if it was an address from the beginning, in whatever spelling."""
        family, kind, proto, _, to = info
        try:
            is_allowed = self.is_allowed(to[0])
        except ValueError:
            is_allowed = False
        if not is_allowed:
            raise Failed(NOT_ALLOWED)
        return socket.socket(family, kind, proto)

    async def close(self) -> None:
        pass


class Client:
    """Keeps connections open between webhooks."""

    def __init__(self, allow: str | None) -> None:
        # Threads of their own: a look-up that hangs must not keep those that read the database.
        self._lookups = ThreadPoolExecutor(LOOKUPS, "names")
        self._sessions = {scheme: self._session(allow, scheme == "https") for scheme in ("http", "https")}

    def _session(self, allow: str | None, is_secure: bool) -> aiohttp.ClientSession:
        guard = Guard(allow, is_secure, self._lookups)
        connector = aiohttp.TCPConnector(
            resolver=guard,
            socket_factory=guard.make_socket,
            use_dns_cache=False,
            ssl=tls_context() if is_secure else True,
            limit=0,
            keepalive_timeout=3,  # seconds: many receivers close after five, and in that moment it would fail
        )
        no_limit = aiohttp.ClientTimeout(total=None)  # there is one around it all
        return aiohttp.ClientSession(
            connector=connector, timeout=no_limit, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        )

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._lookups.shutdown(wait=False, cancel_futures=True)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        """The status, and what the answer says in Retry-After. Raises Failed."""
        session = self._sessions[url.partition(":")[0].lower()]
        try:
            async with session.post(
                URL(url, encoded=True), headers=headers, data=body, allow_redirects=False, skip_auto_headers=["Accept"]
            ) as answer:
                if 200 <= answer.status < 300:
                    await _read_little(answer)
                return answer.status, answer.headers.get("Retry-After", "")
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            raise Failed(f"the connection failed: {type(error).__name__}") from None


async def _read_little(answer: aiohttp.ClientResponse) -> None:
    """It says nothing to us; but only when it is read the connection can be used again."""
    size = 0
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(1):
            async for part in answer.content.iter_any():
                size += len(part)
                if size > MAX_ANSWER:
                    return
