"""Answers that callers share, so that many open pages that poll cost about as much as one.

Own code, for in the libraries the writer of an answer says how long it is kept, not each reader; and async-lru, the
nearest, reads in a task of its own, where FastAPI can't end the dependencies of the request.
"""

import asyncio
import re
import time
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from crm.web.auth import authenticate

OLDEST = 99  # seconds
LARGEST = 256 * 1024  # bytes


class Shared(APIRoute):
    """An admin who says that some seconds of age will do (`Cache-Control: max-age=2`) may get another's answer.

    All others get what is read for them alone.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        read, kept = super().get_route_handler(), dict[str, tuple[float, asyncio.Future[Response]]]()
        if self.methods != {"GET"}:
            return read

        async def share(request: Request) -> Response:
            max_age = re.search(r"max-age=(\d{1,2})\b", request.headers.get("cache-control", ""))
            if max_age is None or (await authenticate(request)).role != "admin":
                return await read(request)
            url, now = str(request.url), time.monotonic()
            if url in kept and now - kept[url][0] <= int(max_age[1]):
                return await asyncio.shield(kept[url][1])  # who hangs up leaves it to the others
            for old in [old for old, (begin, _) in kept.items() if now - begin > OLDEST]:
                del kept[old]
            answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
            kept[url] = now, answer
            try:
                answer.set_result(await read(request))
            except BaseException as error:  # for those who wait with us too, but for nobody later
                kept.pop(url, None)
                answer.set_exception(error)
            if answer.exception() is None and len(answer.result().body) > LARGEST:
                kept.pop(url, None)
            return answer.result()

        return share
