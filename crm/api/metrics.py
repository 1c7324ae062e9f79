"""Figures for Prometheus: what happened is counted as it is told (`events`), the state is read at the scrape."""

import hashlib
import multiprocessing
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import sqlalchemy
from fastapi import APIRouter, HTTPException, Response
from sqlalchemy import func
from sqlmodel import Session, col, select

from crm import events
from crm.api.stats import list_source_stats
from crm.distribution import LOAD
from crm.fields import IS_PENDING, utcnow
from crm.models import Contact, Operator
from crm.outbox.deliveries import oldest_waiting
from crm.web.answers import responses
from crm.web.deps import Period, SessionDep

router = APIRouter(tags=["Service"])
SHARES = {
    "target_share": "weight / sum of the weights.",
    "actual_share": "Of the source's contacts that have an operator.",
}
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
SECONDS_OF_REQUESTS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
SECONDS_OF_WAITING = (1, 10, 60, 300, 900, 3600, 14_400, 86_400)
OUTCOMES = {  # of a registration, by the event and the reason of the assignment
    ("contact assigned", "distributed"): "assigned",
    ("contact assigned", "sticky"): "assigned",  # if it comes from nowhere: from the queue it has waited
    ("contact left without operator", "queued"): "pending",
    ("contact repeated", None): "repeated",
}


def _share_directory() -> None:
    """The workers of one service count in files of one directory, named after what only they know of each other.

    Own code, for prometheus_client wants it named and emptied before they start, and with uvicorn nobody comes before.
    """
    parent = multiprocessing.parent_process()
    if parent is None or "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        return
    temporary, begin = Path(tempfile.gettempdir()), f"crm-metrics-{socket.gethostname()}-"
    key = hashlib.sha256(multiprocessing.current_process().authkey).hexdigest()[:16]
    directory = temporary / f"{begin}{parent.pid}-{key}"
    for other in temporary.iterdir():
        pid = re.fullmatch(re.escape(begin) + r"(\d{1,9})-[0-9a-f]{16}", other.name)
        if pid and other != directory and (int(pid[1]) == parent.pid or not _is_running(int(pid[1]))):
            shutil.rmtree(other, ignore_errors=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


IS_INSTALLED = find_spec("prometheus_client") is not None
if IS_INSTALLED:
    _share_directory()  # prometheus_client looks for it when it is imported
    from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
    from prometheus_client.metrics_core import GaugeMetricFamily
    from prometheus_client.multiprocess import MultiProcessCollector

    REQUESTS = Histogram("crm_request_seconds", "Requests.", ("method", "route", "status"), buckets=SECONDS_OF_REQUESTS)
    REGISTRATIONS = Counter(
        "crm_registrations", "Contacts that came in: assigned, pending, repeated.", ("source_id", "outcome")
    )
    DELIVERIES = Counter(
        "crm_deliveries", "Tries to tell subscriptions: delivered, failed, passed_over.", ("subscription_id", "outcome")
    )
    WAITED = Histogram("crm_assign_seconds", "From registration to the first assignment.", buckets=SECONDS_OF_WAITING)

    def _outcome(event: str, fields: dict[str, Any]) -> str | None:
        reason = fields.get("reason")
        return None if reason == "sticky" and fields["waited"] != 0 else OUTCOMES.get((event, reason))

    def _count(event: str, fields: dict[str, Any]) -> None:
        if event == "request":
            method = fields["method"] if fields["method"] in METHODS else "other"
            REQUESTS.labels(method, fields["route"], fields["status"]).observe(fields["seconds"])
        elif event == "delivery":
            DELIVERIES.labels(fields["subscription_id"], fields["outcome"]).inc()
        elif outcome := _outcome(event, fields):
            REGISTRATIONS.labels(fields["source_id"], outcome).inc()
        if fields.get("waited") is not None:
            WAITED.observe(fields["waited"])

    events.listeners.append(_count)


class State:
    """What the database holds now, in the form of a collector."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def collect(self) -> "Iterator[GaugeMetricFamily]":
        works = col(Operator.is_active) & col(Operator.on_shift)
        columns = (col(Operator.id), col(Operator.name), LOAD, col(Operator.max_load), works)
        operators = self.session.connection().execute(sqlalchemy.select(*columns)).all()
        names: tuple[str, ...] = ("operator_id", "operator")
        yield _gauge("crm_operator_load", "Open contacts.", names, (row[:3] for row in operators))
        yield _gauge("crm_operator_max_load", "Most open contacts.", names, ((*row[:2], row[3]) for row in operators))
        yield _gauge("crm_operator_active", "0: gets nothing.", names, ((*row[:2], row[4]) for row in operators))

        sources, source_id = list_source_stats(Period(), self.session), col(Contact.source_id)
        oldest = select(source_id, func.min(Contact.created_at)).where(IS_PENDING).group_by(source_id)
        waits = {source: (utcnow() - since).total_seconds() for source, since in self.session.exec(oldest)}
        names = ("source_id", "source")
        pending = ((row.source_id, row.source_name, row.pending) for row in sources)
        yield _gauge("crm_pending", "Contacts that wait.", names, pending)
        seconds = ((row.source_id, row.source_name, waits.get(row.source_id, 0)) for row in sources)
        yield _gauge("crm_oldest_pending_seconds", "How long the oldest has waited; 0: none does.", names, seconds)

        names, waiting = ("subscription_id", "subscription"), oldest_waiting(self.session.connection())
        yield _gauge("crm_oldest_delivery_seconds", "How long the oldest event waits to be told.", names, waiting)

        names = ("source_id", "source", "operator_id", "operator")
        for share, text in SHARES.items():
            shares = (
                (row.source_id, row.source_name, entry.operator_id, entry.operator_name, getattr(entry, share))
                for row in sources
                for entry in row.operators
            )
            yield _gauge(f"crm_{share}", text, names, shares)


def _gauge(name: str, text: str, labels: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> "GaugeMetricFamily":
    """rows: the values of the labels, and the figure."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for *values, figure in rows:
        family.add_metric([str(value) for value in values], figure)
    return family


TEXT = {"description": "The figures.", "content": {"text/plain": {"schema": {"type": "string"}}}}


@router.get(
    "/metrics", summary="Figures for Prometheus", response_class=Response, responses={200: TEXT, **responses(501)}
)
def get_metrics(session: SessionDep) -> Response:
    """In Prometheus' text format, for all workers of this copy of the service. Needs the extra `metrics`."""
    if not IS_INSTALLED:
        raise HTTPException(501, "metrics need prometheus-client: pip install -e '.[metrics]'")
    state, counted = CollectorRegistry(), REGISTRY
    state.register(State(session))
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        counted = CollectorRegistry()
        MultiProcessCollector(counted)  # type: ignore[no-untyped-call]
    return Response(generate_latest(counted) + generate_latest(state), media_type=CONTENT_TYPE_LATEST)
