"""Sign-in: in a browser a session takes the place of a key."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import token_bucket
from fastapi.testclient import TestClient

import crm.api.sessions
from crm.errors import TooManyRequests, Unauthorized
from crm.web import auth, sessions
from tests.conftest import Api, address, app_on
from tests.postgres import sql
from tests.service import serving

ADMIN = "the admin's own long key"


class Browser(Api):
    """Sends what a browser does for the page, with the cookie that it got."""

    def __init__(self, client: TestClient, token: str | None = None) -> None:
        super().__init__(client)
        self.token = token

    def answer(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """headers: others than those of the page."""
        sent = headers or {"Sec-Fetch-Site": "same-origin"}
        cookie = {"Cookie": f"crm_session={self.token}"} if self.token else {}
        answer = self.client.request(method, path, json=body, headers={**cookie, **sent})
        self.client.cookies.clear()  # the client would share them among all browsers
        return answer

    def call(self, method: str, path: str, body: Any = None, expect: int = 200) -> Any:
        answer = self.answer(method, path, body)
        assert answer.status_code == expect, f"{method} {path} {body}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def sign_in(self, key: str) -> Any:
        answer = self.answer("POST", "/session", {"key": key})
        assert answer.status_code == 201, answer.text
        self.token = answer.cookies["crm_session"]
        return answer.json()


@pytest.fixture
def browsers(database: str) -> Iterator[Callable[[], Browser]]:
    """Makes browsers, of a service that asks for keys."""
    with TestClient(app_on(database, admin_key=ADMIN, rate_limit=10_000), address()) as client:
        yield lambda: Browser(client)


@pytest.fixture
def admin(browsers: Callable[[], Browser]) -> Browser:
    browser = browsers()
    browser.sign_in(ADMIN)
    return browser


@pytest.fixture
def move_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    at = [datetime.now(UTC)]

    def move(**by: float) -> None:
        at[0] += timedelta(**by)

    for module in (auth, crm.api.sessions):
        monkeypatch.setattr(module, "utcnow", lambda: at[0])
    return move


def key_of_anna(admin: Browser) -> str:
    operator_id = admin.operator("Anna")
    return str(admin.post("/keys/", {"role": "operator", "operator_id": operator_id, "name": "a"})["key"])


def test_the_cookie_is_for_the_service_alone_and_out_of_reach_of_scripts(browsers: Callable[[], Browser]) -> None:
    browser = browsers()
    host = str(browser.client.base_url).partition("://")[2].rstrip("/")
    for scheme, root_path, attributes in (
        ("http", "", {"HttpOnly", "SameSite=strict", "Path=/", "Max-Age=34560000"}),
        ("https", "", {"HttpOnly", "SameSite=strict", "Path=/", "Max-Age=34560000", "Secure"}),
        ("http", "/crm", {"HttpOnly", "SameSite=strict", "Path=/crm", "Max-Age=34560000"}),
    ):
        browser.client._transport.root_path = root_path  # type: ignore[attr-defined]
        answer = browser.answer("POST", f"{scheme}://{host}/session", {"key": f" {ADMIN}\n"})
        cookie, *found = answer.headers["Set-Cookie"].split("; ")
        assert set(found) == attributes
        token = cookie.removeprefix("crm_session=")
        assert len(token) >= 40
        assert token not in answer.text
        browser.token = token
        gone = browser.answer("DELETE", f"{scheme}://{host}/session").headers["Set-Cookie"].split("; ")
        assert {*gone[1:]} == attributes - {"Max-Age=34560000"} | {"Max-Age=0"}


def test_a_session_has_the_rights_of_its_key_and_says_whose_it_is(admin: Browser, browsers: Any) -> None:
    anna = browsers()
    made = anna.sign_in(key_of_anna(admin))
    assert (made["role"], made["operator_id"], made["operator_name"], made["current"]) == ("operator", 1, "Anna", True)
    assert admin.get("/session")["role"] == "admin"
    present = anna.get("/session")
    assert present["session"] == {name: made[name] for name in present["session"]}
    assert present.pop("session")
    assert present == {"role": "operator", "operator_id": 1, "operator_name": "Anna", "needs_key": True}
    assert anna.get("/operators/1")["name"] == "Anna"
    assert anna.patch("/operators/1", {"is_active": False})["is_active"] is False
    anna.get("/stats/", expect=403)
    anna.get("/operators/2", expect=404)
    answer = browsers().answer("GET", "/session", **{"X-API-Key": ADMIN})
    assert answer.json() == {
        "role": "admin", "operator_id": None, "operator_name": None, "session": None, "needs_key": True
    }  # fmt: skip
    browsers().get("/session", expect=401)


def test_a_program_needs_no_session(admin: Browser, browsers: Any) -> None:
    source_id = admin.source()
    for role in ({"role": "source", "source_id": source_id}, {"role": "metrics"}):
        key = admin.post("/keys/", {**role, "name": "x"})["key"]
        assert role["role"] in browsers().post("/session", {"key": key}, expect=403)["detail"]
    assert len(admin.get("/sessions/")) == 1


def test_while_no_keys_are_asked_for_nobody_signs_in(api: Api) -> None:
    nobody = {"role": "admin", "operator_id": None, "operator_name": None, "session": None, "needs_key": False}
    assert api.get("/session") == nobody
    assert "no keys" in api.post("/session", {"key": "x"}, expect=409)["detail"]
    assert api.get("/sessions/") == []
    api.delete("/session")
    api.delete("/sessions/1", expect=404)


@pytest.mark.parametrize("key", ["", " ", None, 5, "a\0b", "x" * 4097])
def test_a_key_that_can_be_none_is_422(browsers: Callable[[], Browser], key: Any) -> None:
    assert browsers().post("/session", {"key": key}, expect=422)["detail"][0]["loc"] == ["body", "key"]


def test_only_hashes_are_stored(admin: Browser, database: str) -> None:
    [row] = sql(database, "SELECT * FROM browser_session")
    assert admin.token is not None
    assert auth.digest_of(admin.token) in row
    assert not {admin.token, ADMIN} & {str(value) for value in row}


def test_ones_own_sessions_are_listed_and_ended_and_no_others(admin: Browser, browsers: Any) -> None:
    laptop, phone, other = browsers(), browsers(), admin
    key = key_of_anna(admin)
    ids = [browser.sign_in(key)["id"] for browser in (laptop, phone)]
    listed = laptop.get("/sessions/")
    assert [(row["id"], row["current"]) for row in listed] == [(ids[0], True), (ids[1], False)]
    assert listed[0].keys() == {"id", "created_at", "expires_at", "last_used_at", "user_agent", "current"}
    assert listed[0]["user_agent"] == "testclient"
    assert [row["id"] for row in laptop.get("/sessions/?skip=1&limit=1")] == ids[1:]
    for not_own in (other.get("/sessions/")[0]["id"], 99):
        laptop.delete(f"/sessions/{not_own}", expect=404)
    laptop.delete(f"/sessions/{ids[1]}")
    assert "sign in again" in phone.get("/session", expect=401)["detail"]
    assert [row["id"] for row in laptop.get("/sessions/")] == ids[:1]
    laptop.delete("/session")
    laptop.get("/session", expect=401)
    laptop.delete("/session")  # it has ended already
    browsers().delete("/session")  # there never was one
    assert other.get("/session")["session"]["current"]


def test_who_signs_in_anew_ends_the_session_before(admin: Browser) -> None:
    before = Browser(admin.client, admin.token)
    assert admin.sign_in(ADMIN)["id"] == 2
    assert [row["id"] for row in admin.get("/sessions/")] == [2]
    before.get("/session", expect=401)


def test_a_session_ends_twelve_hours_after_its_last_use(
    move_clock: Callable[..., None], admin: Browser, database: str
) -> None:
    def until_renewed(before: str) -> str:
        deadline = time.monotonic() + 30
        while (at := str(admin.get("/session")["session"]["expires_at"])) == before:
            assert time.monotonic() < deadline
        return at

    first = admin.get("/session")["session"]["expires_at"]
    move_clock(seconds=59)
    assert [admin.get("/session")["session"]["expires_at"] for _ in range(3)] == [first] * 3  # not at each use
    move_clock(hours=11, minutes=59)
    second = until_renewed(first)
    move_clock(hours=11, minutes=59)
    third = until_renewed(second)
    assert datetime.fromisoformat(third) - datetime.fromisoformat(second) == timedelta(hours=11, minutes=59)
    move_clock(hours=12)
    admin.get("/session", expect=401)
    assert sql(database, "SELECT count(*) FROM browser_session") == [(1,)]
    admin.sign_in(ADMIN)
    assert sql(database, "SELECT id FROM browser_session") == [(2,)]


def test_a_session_ends_with_its_key(admin: Browser, browsers: Any, database: str) -> None:
    anna = browsers()
    anna.sign_in(key_of_anna(admin))
    admin.delete("/keys/1")
    assert "sign in again" in anna.get("/session", expect=401)["detail"]
    admin.get("/session")
    token = admin.token
    with TestClient(app_on(database, admin_key=ADMIN + "!"), address()) as client:
        Browser(client, token).get("/session", expect=401)


# --- other sites -----------------------------------------------------------------------------------------------------


def test_only_the_page_itself_changes_something_with_a_session(admin: Browser) -> None:
    host = str(admin.client.base_url).partition("://")[2].rstrip("/")
    key = {"X-API-Key": ADMIN}
    for headers, status in (
        ({"Accept": "*/*"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": f"https://evil.example/{host}"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": f"http://{host}"}, 403),
        ({"Origin": f"http://{host}"}, 201),
        ({"Origin": f"https://{host}"}, 201),
        ({"Sec-Fetch-Site": "same-origin"}, 201),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://behind.a.proxy"}, 201),
        ({"Sec-Fetch-Site": "cross-site", **key}, 201),  # a form of another site can't send it
        ({"X-API-Key": "wrong", "Sec-Fetch-Site": "same-origin"}, 401),  # a key wins over the cookie
    ):
        answer = admin.answer("POST", "/operators/", {"name": "Anna"}, **headers)
        assert answer.status_code == status, headers
        if status == 403:
            assert "only the page itself" in answer.json()["detail"]
            assert admin.answer("POST", "/operators/", {"nonsense": 1}, **headers).status_code == 403
    assert len(admin.get("/operators/")) == 5
    assert admin.answer("GET", "/operators/", **{"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_no_other_site_signs_anybody_in_or_out(admin: Browser, browsers: Any) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        for method, body in (("POST", {"key": ADMIN}), ("DELETE", None)):
            answer = admin.answer(method, "/session", body, **headers)
            assert answer.status_code == 403
            assert "Set-Cookie" not in answer.headers
    assert [row["id"] for row in admin.get("/sessions/")] == [1]
    assert browsers().answer("POST", "/session", {"key": ADMIN}, Accept="*/*").status_code == 201  # no browser at all


# --- limits ----------------------------------------------------------------------------------------------------------


def test_after_ten_wrong_keys_even_the_right_one_waits_for_the_minute_to_end(
    browsers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = [1000.0]
    monkeypatch.setattr(sessions, "monotonic", lambda: at[0])
    browser = browsers()
    for _ in range(9):
        browser.post("/session", {"key": "wrong"}, expect=401)
    for _ in range(3):
        browser.sign_in(ADMIN)  # does not count, and forgives nothing
    at[0] += 20
    browser.post("/session", {"key": "wrong"}, expect=401)
    for key in ("wrong", ADMIN):
        answer = browser.answer("POST", "/session", {"key": key})
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "41")
        assert "wrong keys" in answer.json()["detail"]
    browser.get("/session")
    at[0] += 40
    browser.sign_in(ADMIN)


def test_wrong_keys_are_counted_by_address_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST_ADDRESSES", 100)
    tries = sessions.WrongTries()

    def count(address: str, times: int) -> int:
        """How many wrong tries it has."""
        done = 0
        for _ in range(times):
            with suppress(Unauthorized), tries.watch(address):
                done += 1
                raise Unauthorized("wrong")
        return done

    assert count("10.0.0.1", 10) == 10
    assert count("10.0.0.2", 10) == 10
    for same in ("10.0.0.1", "::ffff:10.0.0.1"):
        with pytest.raises(TooManyRequests):
            count(same, 1)
    assert count("2001:db8::1", 5) + count("2001:db8::ffff:2", 5) == 10
    with pytest.raises(TooManyRequests):
        count("2001:db8::3", 1)
    assert count("2001:db8:0:1::1", 1) == 1
    for number in range(1000):
        count(f"host-{number}", 1)
    assert len(tries._tries) == 100
    with ExitStack() as at_once:
        for _ in range(10):
            at_once.enter_context(tries.watch("10.0.0.9"))
        with pytest.raises(TooManyRequests):
            count("10.0.0.9", 1)
    assert count("10.0.0.9", 10) == 10


def test_a_session_shares_the_rate_of_its_key(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_bucket.storage, "time", type("Clock", (), {"monotonic": staticmethod(lambda: 1000.0)}))
    with TestClient(app_on(database, admin_key=ADMIN, rate_limit=5), address()) as client:
        browser = Browser(client)
        browser.sign_in(ADMIN)
        by_key = [client.get("/operators/", headers={"X-API-Key": ADMIN}).status_code for _ in range(5)]
        assert by_key == [200] * 5
        assert [browser.answer("GET", "/operators/").status_code for _ in range(5)] == [200] * 4 + [429]


# --- several processes -----------------------------------------------------------------------------------------------


def test_a_session_holds_in_all_processes_and_ends_in_all_at_once(database: str) -> None:
    with (
        serving(database, copies=2, CRM_ADMIN_KEY=ADMIN) as service,
        closing(service.connect()) as first,
        closing(service.connect()) as second,
    ):

        def call(over: Any, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
            return service.request(method, path, body, over, {"Sec-Fetch-Site": "same-origin", **headers})

        by_key = {"X-API-Key": ADMIN}
        assert call(first, "POST", "/operators/", {"name": "Anna"}, **by_key)[0] == 201
        made = {"role": "operator", "operator_id": 1, "name": "x"}
        _, key = call(first, "POST", "/keys/", made, **by_key)
        for end in ("/session", f"/keys/{key['id']}"):
            headers = {"Content-Type": "application/json", "X-Forwarded-Proto": "https"}
            first.request("POST", "/session", json.dumps({"key": key["key"]}), headers)
            answer = first.getresponse()
            answer.read()
            assert answer.headers["Set-Cookie"].endswith("; Secure")  # said by a proxy on this machine
            cookie = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
            for connection in (first, second):
                assert call(connection, "GET", "/operators/1", **cookie)[0] == 200
            assert call(first, "DELETE", end, **(cookie if end == "/session" else by_key))[0] == 204
            for connection in (second, first):
                assert call(connection, "GET", "/operators/1", **cookie)[0] == 401
