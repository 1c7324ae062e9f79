"""Messages to people, over whatever they read (Telegram, e-mail, Slack ...): short texts, sent with apprise.

It is an extra of 14 MB, so it is imported when the first message or subscription needs it.
"""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

from sqlalchemy import Connection, select
from sqlmodel import col

from crm.fields import Language, utcnow
from crm.models import Contact, Lead, LeadIdentifier, Source
from crm.outbox.feed import ContactEvent
from crm.outbox.tables import Delivery, Subscription
from crm.outbox.webhooks import Failed

TIMEOUT = 30  # seconds
THREADS = 8
TOO_OLD = timedelta(hours=1)  # what happened before is no news
ALERTS_EVERY = timedelta(minutes=10)
LINES, MESSAGE = 10, 200  # at most: of one message; characters of what the lead wrote
# Told unless the subscription names its types; the others ask nobody to do anything.
TYPES = ("contact.assigned", "contact.queued", "contact.overdue", "contact.unaccepted")
ALERTS = {"contact.queued", "contact.overdue"}
# Programs get signed webhooks; the rest act on the server itself: its desktop and its log, or (the last two) its files.
REFUSED = {"http", "https", "json", "jsons", "xml", "xmls", "form", "forms", "apprise", "apprises", "growl"}
REFUSED |= {"dbus", "qt", "kde", "glib", "gio", "gnome", "macosx", "windows", "syslog", "blink1", "fcm", "vapid"}
IS_INSTALLED = find_spec("apprise") is not None

TEXTS = {
    "en": {
        "yours": "Contact {id} from {source} is yours.",
        "contact.assigned": "Contact {id} from {source} went to {operator}.",
        "contact.queued": "Contact {id} from {source} waits: nobody has room.",
        "contact.started": "{operator} works on contact {id} from {source}.",
        "contact.closed": "Contact {id} from {source} is closed.",
        "contact.overdue": "Contact {id} from {source} has waited too long.",
        "contact.unaccepted": "Nobody has accepted contact {id} from {source}.",
        "more": "And {more} more.",
        "test": "A test: messages of the CRM arrive here.",
        "notice": "Subscription {id} ({name}) was switched off: its messages can't be delivered.",
        "no name": "without a name",
    },
    "ru": {
        "yours": "Обращение {id} ({source}) — вам.",
        "contact.assigned": "Обращение {id} ({source}) получает {operator}.",
        "contact.queued": "Обращение {id} ({source}) ждёт: ни у кого нет места.",
        "contact.started": "{operator} работает с обращением {id} ({source}).",
        "contact.closed": "Обращение {id} ({source}) закрыто.",
        "contact.overdue": "Обращение {id} ({source}) ждёт слишком долго.",
        "contact.unaccepted": "Обращение {id} ({source}) никто не принял.",
        "more": "И ещё {more}.",
        "test": "Проверка: сообщения CRM приходят сюда.",
        "notice": "Подписка {id} ({name}) выключена: её сообщения не доходят.",
        "no name": "без названия",
    },
}


def check_url(target: str) -> None:
    """Raises ValueError, whose text says what is wrong. Slow at the first call, which imports the library."""
    scheme = target.partition("://")[0].lower()
    if scheme in REFUSED or _service(target) is None:
        raise ValueError("is neither an https:// URL nor one of apprise, such as tgram://BOT_TOKEN/CHAT_ID")


def mask(target: str) -> str:
    return f"{target.partition('://')[0]}://****"


def _service(target: str) -> Any:
    """What apprise makes of the URL; None if it can't be used."""
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # its lines may quote the target
    import apprise

    asset = apprise.AppriseAsset(http_redirects=False, storage_mode="memory", plugin_paths=[], async_mode=False)
    service = apprise.Apprise.instantiate(target, asset=asset)
    if service is None or any(
        isinstance(each, apprise.AppriseAttachment) and len(each) for each in vars(service).values()
    ):
        return None  # an attachment in the URL (`?template=`) may be a file of this machine
    service.redirects = False  # whatever the URL says
    return service


class People:
    """Sends messages, in threads of their own: a service that hangs must not keep those that read the database."""

    def __init__(self) -> None:
        self._threads, self._free = ThreadPoolExecutor(THREADS, "people"), asyncio.Semaphore(THREADS)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def send(self, target: str, text: str) -> None:
        """Raises Failed. Who does not answer in time may still get it."""
        await self._free.acquire()  # outside the time-out: what is handed over is sent, whoever waits for it
        running, loop = self._threads.submit(_send, target, text), asyncio.get_running_loop()

        def end(_: Any) -> None:
            with suppress(RuntimeError):  # the service has stopped meanwhile, and its loop is closed
                loop.call_soon_threadsafe(self._free.release)

        running.add_done_callback(end)
        try:
            async with asyncio.timeout(TIMEOUT):
                is_sent = await asyncio.wrap_future(running)
        except TimeoutError:
            raise Failed(f"no answer within {TIMEOUT} seconds") from None
        except Exception as error:  # of any of a hundred plugins
            raise Failed(f"the service failed: {type(error).__name__}") from None
        if not is_sent:
            raise Failed("the service can't be reached, or refused it")


def _send(target: str, text: str) -> bool:
    import apprise

    service = _service(target)
    return service is not None and bool(service.notify(body=text, title="", body_format=apprise.NotifyFormat.TEXT))


def of_interest(subscription: Subscription, events: Sequence[ContactEvent]) -> list[ContactEvent]:
    """Of the events that it is for, those that are still news; alerts only if the last is ten minutes ago."""
    now = utcnow()
    is_quiet = subscription.alerted_at is not None and now - subscription.alerted_at < ALERTS_EVERY
    return [event for event in events if now - event.timestamp < TOO_OLD and not (is_quiet and event.type in ALERTS)]


def compose(
    connection: Connection, subscription: Subscription, events: Sequence[ContactEvent], public_url: str | None
) -> str:
    """One message of all these events, with a line for each; of the lead only what the subscription allows."""
    texts, shown = TEXTS[subscription.language], events[:LINES]
    about = {row.id: row for row in connection.execute(_about([event.data.contact_id for event in shown]))}
    lines = []
    for event in shown:
        contact, operator = about[event.data.contact_id], event.data.operator
        is_own = event.type == "contact.assigned" and subscription.operator_id is not None
        text = texts["yours" if is_own else event.type]
        name = operator.name if operator else ""
        lines.append(text.format(id=contact.id, source=contact.source, operator=name))
        if subscription.with_lead:
            said = contact.message or ""
            said = said if len(said) <= MESSAGE else f"{said[:MESSAGE]}..."
            lines += [part for part in (" ".join(filter(None, (contact.name, contact.phone))), said) if part]
        if public_url:
            lines.append(f"{public_url}/#contacts/{contact.id}")
    if len(events) > LINES:
        lines.append(texts["more"].format(more=len(events) - LINES))
    return "\n".join(lines)


def text_of(connection: Connection, row: Delivery, language: Language) -> str:
    """Of a test, or a notice."""
    texts = TEXTS[language]
    if row.kind == "test":
        return texts["test"]
    name = connection.execute(select(col(Subscription.name)).where(col(Subscription.id) == row.about_id)).scalar()
    return texts["notice"].format(id=row.about_id, name=name or texts["no name"])


def _about(contact_ids: list[int]) -> Any:
    is_phone = (col(LeadIdentifier.lead_id) == col(Lead.id), col(LeadIdentifier.kind) == "phone")
    phone = select(col(LeadIdentifier.value)).where(*is_phone).order_by(col(LeadIdentifier.value)).limit(1)
    columns: Any = (col(Contact.id), col(Source.name).label("source"), col(Contact.message), col(Lead.name))
    return (
        select(*columns, phone.correlate(Lead).scalar_subquery().label("phone"))
        .join(Source, col(Source.id) == col(Contact.source_id))
        .join(Lead, col(Lead.id) == col(Contact.lead_id))
        .where(col(Contact.id).in_(contact_ids))
    )
