"""Those who are told of every event while contacts are registered, and do as little with it as can be."""

import asyncio
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.service import Service


@contextmanager
def open_streams(service: Service, number: int) -> Iterator[list[int]]:
    """Meanwhile so many streams are read; gives how many bytes came on each."""
    request = f"GET /events/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {service.headers.get('X-API-Key')}\r\n\r\n"
    streams = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(number)]
    came = [0] * number

    def read(nth: int) -> None:
        with suppress(OSError):
            while part := streams[nth].recv(65_536):
                came[nth] += len(part)

    threads = [threading.Thread(target=read, args=(nth,)) for nth in range(number)]
    for stream, thread in zip(streams, threads, strict=True):
        stream.sendall(request.encode())
        thread.start()
    try:
        yield came
    finally:
        for stream in streams:
            stream.shutdown(socket.SHUT_RDWR)
        for stream, thread in zip(streams, threads, strict=True):
            thread.join()
            stream.close()


class Receiver(asyncio.Protocol):
    """Takes each webhook with 204."""

    def __init__(self, came: list[int]) -> None:
        self._came, self._text = came, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._text += data
        head, _, body = self._text.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        if length is not None and len(body) >= int(length[1]):
            self._text = b""
            self._came[0] += 1
            self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")


@contextmanager
def webhook(service: Service) -> Iterator[list[int]]:
    """Meanwhile a subscription is told of everything; gives how many webhooks came. Needs CRM_WEBHOOK_ALLOW."""
    came, loop = [0], asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: Receiver(came), "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    path = f"/subscriptions/{service.call('POST', '/subscriptions/', {'target': address})['id']}"
    try:
        yield came
    finally:
        service.request("DELETE", path)
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
