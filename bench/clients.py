"""HTTP clients that cost next to nothing: what is measured is the server."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing


def request(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """A request as it is on the wire."""
    rows = {"Host": "127.0.0.1", **headers, "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in rows.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


class Connection:
    """One connection that stays open."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, whole: bytes) -> int:
        """The status of the answer, which is read to its end."""
        self._socket.sendall(whole)
        answer = bytearray()
        while (end := answer.find(b"\r\n\r\n")) < 0:
            answer += self._piece()
        head = bytes(answer[:end]).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        while len(answer) < end + 4 + length:
            answer += self._piece()
        version, status, _ = head.split(b" ", 2)
        assert version == b"http/1.1", f"no answer: {head[:80]!r}"
        return int(status)

    def _piece(self) -> bytes:
        piece = self._socket.recv(65536)
        if not piece:
            raise ConnectionError("the server closed the connection")
        return piece

    def close(self) -> None:
        self._socket.close()


def latencies(connection: Connection, whole: bytes, status: int, times: int) -> Sequence[float]:
    """Seconds of each of so many requests, one after another."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        got = connection.send(whole)
        found.append(time.perf_counter() - started)
        assert got == status, f"answered {got}, not {status}"
    return found


def pace(port: int, whole: bytes, status: int, clients: int, times: int) -> float:
    """Seconds per request, where each of so many clients sends one request after another."""
    with ExitStack() as stack, ThreadPoolExecutor(clients) as pool:
        connections = [stack.enter_context(closing(Connection(port))) for _ in range(clients)]
        started = time.perf_counter()
        list(pool.map(lambda connection: latencies(connection, whole, status, times), connections))
        took = time.perf_counter() - started
    return took / (clients * times)
