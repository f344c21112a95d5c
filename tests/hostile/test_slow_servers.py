"""Attack: servers that send a byte now and then, headers or redirects without end, wrong lengths, or half a file."""

import http.server
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from read_items import read_items
from tars import member, png, tar

from diffood.runtime.images.decode import ImageLimits
from diffood.runtime.inputs.urls import UrlRules

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

from diffood.runtime.inputs import pace

SHARD = tar([member("a.png", png(1)), member("b.png", png(2))])
LIMITS = ImageLimits(max_bytes=10_000)
Attack = Callable[["Server"], None]


class Server(http.server.BaseHTTPRequestHandler):
    """/good/NAME is a file; /ATTACK/NAME is answered by the attack."""

    over: threading.Event  # the test is; then attacks end

    def do_GET(self) -> None:
        attack = self.path.split("/")[1]
        ATTACKS[attack](self)

    do_HEAD = do_GET  # noqa: N815

    @property
    def data(self) -> bytes:
        return SHARD if ".tar" in self.path else png(3)

    def begin(self, size: int | None, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        if size is not None:
            self.send_header("Content-Length", str(size))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def send(self, data: bytes) -> None:
        if self.command != "HEAD":
            self.wfile.write(data)

    def drip(self, data: Iterator[bytes]) -> None:
        """Send a piece twenty times a second, for ever."""
        for piece in data:
            if self.over.wait(0.05):
                return
            self.wfile.write(piece)
            self.wfile.flush()

    def log_message(self, *words: object) -> None:
        """Stay silent."""


def good(server: Server) -> None:
    server.begin(len(server.data))
    server.send(server.data)


def slow_stream(server: Server) -> None:
    server.begin(len(server.data), Accept_Ranges="none")
    if server.command == "GET":
        server.drip(bytes([byte]) for byte in server.data)


def slow_range(server: Server) -> None:
    server.begin(len(server.data), 206 if server.headers["Range"] else 200)
    if server.command == "GET":
        server.drip(bytes([byte]) for byte in server.data)


def slow_after_a_burst(server: Server) -> None:
    """Most at once, which buys no time later."""
    server.begin(10**7, Accept_Ranges="none")
    server.send(SHARD[:-1024] + member("c.png", bytes(10**6))[:600_000])
    if server.command == "GET":
        server.drip(itertools.repeat(b"x"))


def no_headers(server: Server) -> None:
    server.over.wait()


def slow_headers(server: Server) -> None:
    server.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    server.drip(itertools.repeat(b"x"))


def endless_headers(server: Server) -> None:
    server.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(10**5):
        server.wfile.write(b"X%d: x\r\n" % number)


def endless_redirects(server: Server) -> None:
    server.begin(0, 302, Location=f"/endless_redirects/{time.monotonic_ns()}/{server.path.rpartition('/')[2]}")


def endless_body(server: Server) -> None:
    """More than the range that was asked for, or a page of a folder without end."""
    server.begin(None if server.command == "GET" else 2000, 206, Content_Type="text/html")
    while server.command == "GET" and not server.over.is_set():
        server.wfile.write(bytes(2**16))


def too_long(server: Server) -> None:
    server.begin(10**9)
    server.send(server.data)


def too_short(server: Server) -> None:
    server.begin(len(server.data) // 2)
    server.send(server.data[: len(server.data) // 2])


def cut(server: Server) -> None:
    server.begin(len(server.data))
    server.send(server.data[: len(server.data) // 2])


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (
        good, slow_stream, slow_range, slow_after_a_burst, no_headers, slow_headers, endless_headers, endless_redirects,
        endless_body, too_long, too_short, cut,
    )
}  # fmt: skip


GOOD = ("x.png", "s.tar/a.png", "s.tar/b.png")
REASONS = {
    "slow_stream/x.png": "fewer than 1024 bytes per second",
    "slow_range/s.tar": "fewer than 1024 bytes per second",
    "slow_after_a_burst/x.png": "more bytes than the limit",
    "slow_after_a_burst/s.tar": "fewer than 1024 bytes per second",
    "slow_headers/x.png": "no complete headers in 2 s",
    "endless_body/s.tar": "more than the 2000 bytes it may",
}


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the server; patience is short."""
    monkeypatch.setattr(pace, "PATIENCE", 2.0)
    over = threading.Event()
    handler = type("Handler", (Server,), {"over": over})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.handle_error = lambda *given: None  # type: ignore[method-assign]  # of connections that were closed
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        over.set()
        server.shutdown()


def test_each_is_a_refused_row_and_the_rest_is_read(web: str, tmp_path: Path, subtests: pytest.Subtests) -> None:
    cases = [f"{attack}/{name}" for attack in ATTACKS if attack != "good" for name in ("x.png", "s.tar")]

    def read(case: str) -> dict[str, bytes | str]:
        path = tmp_path / f"{case.replace('/', '-')}.txt"
        path.write_text(f"{web}/{case}\n{web}/good/x.png\n{web}/good/s.tar")
        return read_items([f"@{path}"], LIMITS, UrlRules(private=True))

    with ThreadPoolExecutor(len(cases)) as pool:
        for case, found in zip(cases, pool.map(read, cases), strict=True):
            with subtests.test(case):
                assert [found.pop(f"{web}/good/{name}") for name in GOOD] == [png(3), png(1), png(2)]
                if case == "too_short/x.png":  # which decoding refuses
                    assert found == {f"{web}/{case}": png(3)[: len(png(3)) // 2]}
                else:
                    assert REASONS.get(case, "cannot be read") in str(found.pop(f"{web}/{case}"))
