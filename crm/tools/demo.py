"""A made-up team, and bots that write to it: sent to a running service over HTTP, as real ones would."""

import json
import random
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from typing import Any, NamedTuple

import click

from crm.errors import StartupError

LIMITS = {"Anna": 8, "Boris": 6, "Vera": 10, "Gleb": 5, "Daria": 8}
SOURCES = {  # by bot_id: the name, and the weight of each operator
    "demo_telegram": ("Telegram", {"Anna": 10, "Boris": 30, "Vera": 20}),
    "demo_whatsapp": ("WhatsApp", {"Vera": 1, "Gleb": 1, "Daria": 2}),
    "demo_website": ("Website chat", {"Anna": 5, "Daria": 5}),
    "demo_instagram": ("Instagram", {"Boris": 3, "Gleb": 1}),
}
FIRST_NAMES = ["Ivan", "Maria", "John", "Nina", "Alex", "Max", "Олег", "Света", "Пётр", "Жанна", "Лиза", "Саша"]
SURNAMES = ["Smith", "Weber", "Rossi", "Novak", "Silva", "Kim", "Шевчук", "Гончар", "Мельник", "Ли", "Коваль", "Юн"]
MESSAGES = [
    *("Where is my order?", "Здравствуйте! Когда будет доставка?", "The promo code does not work."),
    *("Do you ship to Minsk?", "Можно ли изменить адрес?", "I was charged twice!", "Есть ли размер M?"),
    *("Can I talk to a human?", "Подскажите по гарантии, пожалуйста", "Нужен счёт для юрлица"),
    *("Как оформить возврат?", "Is it back in stock?", "Спасибо, всё пришло."),
]  # fmt: skip


class Person(NamedTuple):
    name: str
    phone: str  # its last ten digits

    def spelled(self, rng: random.Random, bot_id: str) -> dict[str, str]:
        """Some of its identifiers, each written in one of the ways that people and bots have."""
        a, b, c, d = self.phone[:3], self.phone[3:6], self.phone[6:8], self.phone[8:]
        phones = [f"+7{self.phone}", f"8 ({a}) {b}-{c}-{d}", f"+7 {a} {b} {c} {d}", f"8{self.phone}"]
        email = f"lead{self.phone}@example.com"
        said = {"lead_external_id": f"{bot_id}:{self.phone}", "lead_phone": rng.choice(phones)}
        said["lead_email"] = rng.choice([email, email.upper(), f" {email} "])
        return said | ({"lead_name": self.name} if rng.random() < 0.7 else {})


class Demo:
    def __init__(self, url: str, key: str | None, rng: random.Random) -> None:
        """url: of a running service. key: an admin's, if it asks for keys. Its calls raise StartupError."""
        self._url, self._rng = url.rstrip("/"), rng
        self._headers = {"Content-Type": "application/json"} | ({"X-API-Key": key} if key else {})
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self._run, self._people = secrets.token_hex(4), list[Person]()
        self._sources: list[int] = []
        self._operators: set[int] = set()
        self._was_there = False

    def call(self, method: str, path: str, body: Any = None, forgive: tuple[int, ...] = ()) -> Any:
        """Repeats it while the service is busy, or away after it was there. forgive: statuses that give None."""
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, content, self._headers, method=method)  # noqa: S310
        while True:
            try:
                with self._open(request, timeout=30) as answer:
                    content = json.load(answer)
                self._was_there = True
                return content
            except urllib.error.HTTPError as error:
                with error:
                    said, wait = error.read().decode(errors="replace"), error.headers.get("Retry-After", "")
                if error.code in forgive:
                    return None
                if not wait.isdigit():
                    raise StartupError(f"{method} {path}: {error.code} {said}") from error
                time.sleep(int(wait))
            except (OSError, HTTPException) as error:
                if not self._was_there:
                    raise StartupError(
                        f"no service answers at {self._url}: is uvicorn crm.main:app running?"
                    ) from error
                time.sleep(1)
            except ValueError as error:
                raise StartupError(f"{self._url} is no Mini-CRM: {method} {path} gave no JSON") from error

    def fill(self, add: bool) -> None:
        """Operators, sources and weights. add: also beside other data, without it such a service is refused."""
        sources = self.call("GET", "/sources/?limit=1000")
        if not add and (sources or self.call("GET", "/operators/?limit=1") or self.call("GET", "/leads/?limit=1")):
            raise StartupError("this service has data already: start it on an empty database, or say --add")
        ours = [source for source in sources if source["bot_id"] in SOURCES]
        names = {source["name"] for source in sources}
        if not ours:
            fields = [{"name": name, "max_load": max_load} for name, max_load in LIMITS.items()]
            operators = {body["name"]: self.call("POST", "/operators/", body)["id"] for body in fields}
            for bot_id, (name, weights) in SOURCES.items():
                name = f"{name} (demo)" if name in names else name
                source = self.call("POST", "/sources/", {"name": name, "bot_id": bot_id})
                entries = [{"operator_id": operators[who], "weight": weight} for who, weight in weights.items()]
                ours.append(self.call("PUT", f"/sources/{source['id']}/operators", entries))
        self._sources = [source["id"] for source in ours]
        self._operators = {entry["operator_id"] for source in ours for entry in source["operators"]}

    def stream(self, contacts: int | None, rate: float) -> Iterator[str]:
        """Sends so many contacts (None: without end), about `rate` a second; says of each who got it.

        Meanwhile operators start and close contacts of its sources, and now and then one goes off or comes back.
        """
        sent, burst = 0, 0
        while contacts is None or sent < contacts:
            sent += 1
            yield self._write(sent)
            self._work()
            if self._rng.random() < 0.03:
                self._change_shift()
            burst = burst - 1 if burst else 15 * (self._rng.random() < 0.01)  # more than the team can take at once
            time.sleep(self._rng.uniform(0.5, 1.5) / rate * (0.1 if burst else 1))

    def _write(self, number: int) -> str:
        rng, source_id = self._rng, self._rng.choice(self._sources)
        if not self._people or rng.random() < 0.4:
            first = rng.randrange(12)  # of either list the first half is in Latin letters
            name = f"{FIRST_NAMES[first]} {SURNAMES[first // 6 * 6 + rng.randrange(6)]}"
            self._people.append(Person(name, f"9{rng.randint(0, 999_999_999):09}"))
        person = rng.choice(self._people[-100:]).spelled(rng, f"bot{source_id}")
        body = {"source_id": source_id, "event_id": f"demo-{self._run}-{number}", "priority": 5 * (rng.random() < 0.2)}
        contact = self.call("POST", "/contacts/", {**body, **person, "message": rng.choice(MESSAGES)})
        return f"{contact['operator']['name'] if contact['operator'] else 'nobody yet'} <- {contact['source']['name']}"

    def _work(self) -> None:
        """The fuller the team, the more is closed, so that it is about four fifths full and a burst has to wait."""
        totals = self.call("GET", "/stats/")
        steps = 3 if totals["pending"] else 2 if totals["utilization"] > 0.85 else 1
        for status, new_status in (("new", "in_progress"), ("in_progress", "closed")):
            if status == "in_progress" and totals["utilization"] < 0.75 and not totals["pending"]:
                return
            found = self.call("GET", f"/contacts/?status={status}&source_id={self._rng.choice(self._sources)}")
            for contact in self._rng.sample(found, min(steps, len(found))):
                # Somebody at the page may have been faster.
                self.call("PATCH", f"/contacts/{contact['id']}/status", {"status": new_status}, forgive=(409,))

    def _change_shift(self) -> None:
        """Brings back who is off; if nobody is, sends somebody off."""
        team = [row for row in self.call("GET", "/operators/?limit=1000") if row["id"] in self._operators]
        off = [row for row in team if not row["is_active"]]
        if team:
            path = f"/operators/{self._rng.choice(off or team)['id']}"
            if off or self._rng.random() < 0.5:
                self.call("PATCH", path, {"is_active": bool(off)}, forgive=(404,))
            else:
                self.call("POST", f"{path}/release", forgive=(404,))


@click.command()
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="Of the running service.")
@click.option("--key", envvar="CRM_ADMIN_KEY", help="An admin's, if it asks for keys; by default CRM_ADMIN_KEY.")
@click.option("--contacts", type=click.IntRange(1), help="Stop after so many; by default at Ctrl-C.")
@click.option(
    "--rate", type=click.FloatRange(0, 1000, min_open=True), default=2, show_default=True, help="Contacts a second."
)
@click.option("--add", is_flag=True, help="Also to a service that has data.")
def demo(url: str, key: str | None, contacts: int | None, rate: float, add: bool) -> None:
    """Fill a running service with a made-up team, and let bots write to it."""
    show = Demo(url, key, random.Random())
    show.fill(add)
    click.echo(f"open {url}/ and see; Ctrl-C stops")
    stream = show.stream(contacts, rate)
    with (
        suppress(KeyboardInterrupt),
        click.progressbar(stream, contacts, "contacts", show_pos=True, item_show_func=lambda said: said or "") as bar,
    ):
        for _ in bar:
            pass
    click.echo("stopped; what was sent stays")
