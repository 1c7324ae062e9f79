"""Answers that callers share: design.md, and the description of the API."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import APIRouter, HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from crm.main import create_app
from crm.web.shared import Shared
from tests.conftest import Api, local, settings_of


def test_who_takes_an_older_answer_shares_it_and_all_others_get_a_fresh_one(api: Api) -> None:
    source_id = api.source()

    def contacts(header: str | None, query: str = "") -> int:
        headers = {"Cache-Control": header} if header else {}
        return int(api.client.get(f"/stats/{query}", headers=headers).json()["contacts"])

    assert contacts("max-age=99") == 0
    api.contact(source_id, "tg:1")
    assert contacts("max-age=99") == 0
    assert contacts("max-age=99", "?since=2020-01-01T00:00:00Z") == 1  # another question
    assert contacts(None) == contacts("no-cache") == contacts("max-age=x") == contacts("max-age=100") == 1
    assert contacts("max-age=99") == 0
    assert contacts("max-age=0") == 1
    assert contacts("max-age=99") == 1
    time.sleep(1.1)
    api.contact(source_id, "tg:2")
    assert contacts("max-age=1") == 2
    assert api.client.get("/stats/?x=1", headers={"Cache-Control": "max-age=9"}).status_code == 422


def test_many_who_share_at_once_are_all_answered(api: Api) -> None:
    api.contact(api.source(), "tg:1")

    def ask(number: int) -> int:
        headers = {"Cache-Control": "max-age=2"}
        path = f"/stats/timeline?minutes={number % 150 + 1}"  # more questions than are kept
        return int(api.client.get(path, headers=headers).json()[-1]["contacts"])

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, range(600)))
    assert len(answers) == 600
    assert set(answers) <= {0, 1}  # 0 once a minute is over


def test_a_slow_answer_is_read_once_for_all_who_wait_and_a_failed_one_is_not_kept(database: str) -> None:
    app = create_app(settings_of(database), random.Random(1))
    asked, calls = list[str](), list[int]()

    class Count:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            asked.append(scope.get("path", ""))
            await self.app(scope, receive, send)

    def slow() -> dict[str, int]:
        calls.append(1)
        while asked.count("/slow") < 8 * len(calls):
            time.sleep(0.01)
        time.sleep(0.3)  # from arriving to waiting for the answer
        if len(calls) == 1:
            raise HTTPException(409, "not yet")
        return {"call": len(calls)}

    router = APIRouter(route_class=Shared)
    router.get("/slow")(slow)
    router.get("/large")(lambda: "x" * 300_000 + str(time.monotonic()))
    app.include_router(router)
    app.add_middleware(Count)
    with local(app) as client, ThreadPoolExecutor(8) as pool:

        def ask(_: int) -> tuple[int, Any]:
            answer = client.get("/slow", headers={"Cache-Control": "max-age=99"})
            return answer.status_code, answer.json()

        assert list(pool.map(ask, range(8))) == [(409, {"detail": "not yet"})] * 8
        assert list(pool.map(ask, range(8))) == [(200, {"call": 2})] * 8
        assert len(calls) == 2
        large = [client.get("/large", headers={"Cache-Control": "max-age=9"}).text for _ in range(2)]
        assert large[0] != large[1]
