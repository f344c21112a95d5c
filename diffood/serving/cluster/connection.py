"""The connection to a Ray cluster, and how many workers its machines can hold."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from diffood.errors import UsageError

SECONDS_TO_ANSWER = 10.0  # for a machine where a cluster is said to be
LOCAL = "ray"
OBJECT_STORE_BYTES = 128 * 2**20  # of a Ray started here: only names and rows pass through it, no images


@contextlib.contextmanager
def connect(ray: Any, address: str) -> Iterator[None]:
    """Be connected to Ray while inside; a connection that the caller has already is used and kept.

    Raises:
        UsageError: No cluster answers at the address.
    """
    if ray.is_initialized():
        yield
        return
    local = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES} if address == LOCAL else {}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray would report the use to its makers
    with _keep_signal_handler():
        try:
            _require_listener(address)
            ray.init("local" if address == LOCAL else address, log_to_driver=False, logging_level="ERROR", **local)
        except Exception as error:  # Ray raises many kinds
            raise UsageError(
                f"No Ray cluster at {address!r} ({one_line(error)}); start one with `ray start --head`, set "
                f"RAY_AUTH_MODE=token if it asks for a token, or give --cluster {LOCAL} for one on this machine."
            ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Raise OSError if nothing listens: Ray would keep trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()


@contextlib.contextmanager
def _keep_signal_handler() -> Iterator[None]:
    """Restore the handler of SIGTERM: Ray installs its own, which ends the process with a stack dump."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def count_slots(nodes: Iterable[dict[str, Any]], gpu: bool, threads: int) -> int:
    """How many workers fit on the machines of `ray.nodes()`: one per GPU, or one per `threads` CPUs."""
    return sum(min(_resource(node, "GPU"), cpus(node)) if gpu else cpus(node) // threads for node in nodes)


def cpus(node: dict[str, Any]) -> int:
    """CPUs of a machine that is alive."""
    return _resource(node, "CPU")


def _resource(node: dict[str, Any], name: str) -> int:
    return int(node["Resources"].get(name, 0)) if node["Alive"] else 0


def one_line(error: BaseException) -> str:
    """What happened, in one line: Ray's messages have many lines, with stack traces."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:200]
