"""Answers that callers share, so that many open pages that poll cost as much as one."""

import asyncio
import re
import time
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from crm.auth import authenticate

KEPT = 100  # answers of each route
NOTHING = float("-inf"), Response()


class Shared(APIRoute):
    """An admin who says that some seconds of age will do (`Cache-Control: max-age=2`) may get another's answer.

    All others get what is read for them alone.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        read, kept, turn = super().get_route_handler(), dict[str, tuple[float, Response]](), asyncio.Lock()
        if self.methods != {"GET"}:
            return read

        async def share(request: Request) -> Response:
            max_age = re.search(r"max-age=(\d{1,4})\b", request.headers.get("cache-control", ""))
            if max_age is None or (await authenticate(request)).role != "admin":
                return await read(request)
            url = str(request.url)
            async with turn:
                begin, (read_at, answer) = time.monotonic(), kept.pop(url, NOTHING)
                if begin - read_at > int(max_age[1]):
                    read_at, answer = begin, await read(request)
                kept[url] = read_at, answer
                if len(kept) > KEPT:
                    del kept[next(iter(kept))]  # asked for longest ago
            return answer

        return share
