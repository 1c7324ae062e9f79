"""A made-up team, and bots that write to it: sent to a running service over HTTP, as real ones would."""

import json
import random
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, NamedTuple

from crm.errors import StartupError

LIMITS = {"Anna": 8, "Boris": 6, "Вера": 10, "Gleb": 5, "Дарья": 8}
SOURCES = {  # by bot_id: the name, and the weight of each operator
    "tg_shop": ("Telegram shop", {"Anna": 10, "Boris": 30, "Вера": 20}),
    "wa_support": ("WhatsApp support", {"Вера": 1, "Gleb": 1, "Дарья": 2}),
    "web_chat": ("Чат на сайте", {"Anna": 5, "Дарья": 5}),
    "insta": ("Instagram", {"Boris": 3, "Gleb": 1}),
}
NAMES = ["Иван", "Maria", "Олег", "Ольга", "John", "Света", "Пётр", "Nina", "Alex", "Жанна", "Max", "Лиза"]
SURNAMES = ["Petrenko", "Смит", "Ким", "Weber", "Чен", "Rossi", "Левин", "Novak", "Сато", "Silva"]
MESSAGES = [
    *("Where is my order?", "Здравствуйте! Когда будет доставка?", "The promo code does not work."),
    *("Do you ship to Minsk?", "Можно ли изменить адрес?", "I was charged twice!", "Есть ли размер M?"),
    *("Can I talk to a human?", "Подскажите по гарантии, пожалуйста", "Нужен счёт для юрлица"),
    *("Как оформить возврат?", "Is it back in stock?", "Спасибо, всё пришло."),
]  # fmt: skip


class Person(NamedTuple):
    name: str
    phone: str  # its last ten digits
    email: str

    def spelled(self, rng: random.Random, bot_id: str) -> dict[str, str]:
        """Some of its identifiers, each written in one of the ways that people and bots have."""
        a, b, c, d = self.phone[:3], self.phone[3:6], self.phone[6:8], self.phone[8:]
        phones = [f"+7{self.phone}", f"8 ({a}) {b}-{c}-{d}", f"+7 {a} {b} {c} {d}", f"8{self.phone}"]
        emails = [self.email, self.email.upper(), f" {self.email} "]
        said = {"lead_external_id": f"{bot_id}:{self.phone}", "lead_phone": rng.choice(phones)}
        return said | {"lead_email": rng.choice(emails)} | ({"lead_name": self.name} if rng.random() < 0.7 else {})


class Demo:
    def __init__(self, url: str, key: str | None, rng: random.Random) -> None:
        """url: of a running service. key: an admin's, if it asks for keys. Its calls raise StartupError."""
        self._url, self._rng = url.rstrip("/"), rng
        self._headers = {"Content-Type": "application/json"} | ({"X-API-Key": key} if key else {})
        self._run, self._people = secrets.token_hex(4), list[Person]()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, content, self._headers, method=method)  # noqa: S310
        while True:
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                with error:
                    said, wait = error.read().decode(errors="replace"), error.headers.get("Retry-After")
                if wait is None:
                    raise StartupError(f"{method} {path}: {error.code} {said}") from error
                time.sleep(int(wait))
            except OSError as error:
                raise StartupError(f"no service answers at {self._url}: is uvicorn crm.main:app running?") from error

    def fill(self, add: bool) -> None:
        """Operators, sources and weights. add: also beside other data, without it such a service is refused."""
        operators = {row["name"]: row["id"] for row in self.call("GET", "/operators/?limit=1000")}
        sources = {row["bot_id"] for row in self.call("GET", "/sources/?limit=1000")}
        if not add and (operators or sources or self.call("GET", "/leads/?limit=1")):
            raise StartupError("this service has data already: start it on an empty database, or say --add")
        for name, max_load in LIMITS.items():
            if name not in operators:
                operators[name] = self.call("POST", "/operators/", {"name": name, "max_load": max_load})["id"]
        for bot_id, (name, weights) in SOURCES.items():
            if bot_id not in sources:
                source = self.call("POST", "/sources/", {"name": name, "bot_id": bot_id})
                entries = [{"operator_id": operators[who], "weight": weight} for who, weight in weights.items()]
                self.call("PUT", f"/sources/{source['id']}/operators", entries)

    def stream(self, contacts: int | None, rate: float) -> Iterator[str]:
        """Sends so many contacts (None: without end), about `rate` a second; says of each who got it.

        Meanwhile operators start and close contacts, and now and then one goes off or comes back.
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
        rng = self._rng
        if not self._people or rng.random() < 0.4:
            name, phone = f"{rng.choice(NAMES)} {rng.choice(SURNAMES)}", f"9{rng.randint(0, 999_999_999):09}"
            self._people.append(Person(name, phone, f"lead{phone}@example.com"))
        bot_id = rng.choice(list(SOURCES))
        person = rng.choice(self._people[-100:]).spelled(rng, bot_id)
        body = {"source_bot_id": bot_id, "event_id": f"demo-{self._run}-{number}", "priority": 5 * (rng.random() < 0.2)}
        contact = self.call("POST", "/contacts/", {**body, **person, "message": rng.choice(MESSAGES)})
        return f"{contact['operator']['name'] if contact['operator'] else 'nobody yet'} <- {SOURCES[bot_id][0]}"

    def _work(self) -> None:
        """The fuller the team, the more is closed, so that it is about four fifths full and a burst has to wait."""
        totals = self.call("GET", "/stats/")
        steps = 3 if totals["pending"] else 2 if totals["utilization"] > 0.85 else 1
        for status, new_status in (("new", "in_progress"), ("in_progress", "closed")):
            if status == "in_progress" and totals["utilization"] < 0.75:
                return
            found = self.call("GET", f"/contacts/?status={status}&limit=50")
            for contact in self._rng.sample(found, min(steps, len(found))):
                self.call("PATCH", f"/contacts/{contact['id']}/status", {"status": new_status})

    def _change_shift(self) -> None:
        """Brings back who is off; if nobody is, sends somebody off."""
        team = [row for row in self.call("GET", "/operators/?limit=1000") if row["name"] in LIMITS]
        off = [row for row in team if not row["is_active"]]
        one = self._rng.choice(off or team)
        if off or self._rng.random() < 0.5:
            self.call("PATCH", f"/operators/{one['id']}", {"is_active": bool(off)})
        else:
            self.call("POST", f"/operators/{one['id']}/release")
