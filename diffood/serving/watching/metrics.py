"""Counts of a run for Prometheus, served on this machine's loopback address only."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from diffood import __version__
from diffood.errors import UsageError
from diffood.serving.output.summary import Tally

HOST = "127.0.0.1"
SECONDS_FOR_A_REQUEST = 10.0
MOST_CONNECTIONS = 8  # at a time; each takes a descriptor from the run
SECONDS_WITHOUT_DESCRIPTORS = 0.2  # to rest where the process may open no more
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics_text(tally: Tally, precision: str, backend: str) -> str:
    """The counts in the text format of Prometheus."""
    statuses: list[tuple[str, float]] = [(f'{{status="{status}"}}', count) for status, count in tally.statuses.items()]
    info = f'{{version="{__version__}",precision="{precision}",backend="{backend}"}}'
    families: list[tuple[str, str, str, list[tuple[str, float]]]] = [
        ("files_total", "counter", "Rows by status, including those of the runs this one resumed.", statuses),
        ("flagged_total", "counter", "Images flagged as out of distribution.", [("", tally.flagged)]),
        ("unet_evaluations_total", "counter", "Evaluations of the UNet.", [("", tally.unet_evaluations)]),
        ("resumed_files", "gauge", "Rows of earlier runs.", [("", tally.resumed)]),
        (
            "images_per_second",
            "gauge",
            "Images scored per second in this run.",
            [("", tally.images_per_second)],
        ),
        ("run_seconds", "gauge", "Seconds since this run began.", [("", tally.seconds)]),
        ("batch", "gauge", "Images that the engine works on at once.", [("", tally.batch)]),
        ("info", "gauge", "Version and engine of the run.", [(info, 1)]),
    ]
    lines = []
    for name, kind, words, samples in families:
        lines += [f"# HELP diffood_{name} {words}", f"# TYPE diffood_{name} {kind}"]
        lines += [f"diffood_{name}{labels} {value}" for labels, value in samples]
    return "\n".join(lines) + "\n"


class _MetricsServer(ThreadingHTTPServer):
    """A server with few connections, none for long; a new one ends the oldest, so that none keeps others out."""

    daemon_threads = True
    request_queue_size = 128  # connections that wait in the system take nothing from the run

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self._connections: dict[socket.socket, float] = {}  # and since when
        self._changed = threading.Condition()
        super().__init__((HOST, port), handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection once there is room for it."""
        with self._changed:
            while len(self._connections) >= MOST_CONNECTIONS:
                _cut(next(iter(self._connections)))
                self._changed.wait(1)
        try:
            connection, address = super().get_request()
        except OSError:  # the caller would ask again at once
            time.sleep(SECONDS_WITHOUT_DESCRIPTORS)
            raise
        with self._changed:
            self._connections[connection] = time.monotonic()
        return connection, address

    def close_request(self, request: Any) -> None:
        """Close a connection and forget it."""
        super().close_request(request)
        with self._changed:
            self._connections.pop(request, None)
            self._changed.notify_all()

    def service_actions(self) -> None:
        """End connections that last too long, as those that send a byte now and then."""
        late = time.monotonic() - SECONDS_FOR_A_REQUEST
        with self._changed:
            for connection, since in self._connections.items():
                if since < late:
                    _cut(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: the other side went away."""


def _cut(connection: socket.socket) -> None:
    """End a connection that another thread may be reading from; that thread closes it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def serving_metrics(port: int, tally: Tally, precision: str, backend: str) -> Iterator[str]:
    """Answer GET /metrics while inside; gives the address.

    Args:
        port: 0 for any free one.
        tally: The counts, read at every request.
        precision: Of the engine.
        backend: Of the engine.

    Raises:
        UsageError: The port is taken or out of range.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = SECONDS_FOR_A_REQUEST

        def do_GET(self) -> None:
            if self.path != "/metrics":
                self.send_error(404)
                return
            body = metrics_text(tally, precision, backend).encode()
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            """Print nothing: standard error is for the user."""

    try:
        server = _MetricsServer(port, Handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--metrics-port {port} cannot be used ({reason}); choose another port.") from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
