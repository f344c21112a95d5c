"""The connection to a Ray cluster, and how many workers its machines can hold."""

import contextlib
import ipaddress
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from diffood.errors import UsageError

SECONDS_TO_ANSWER = 10.0  # for a machine where a cluster is said to be
LOCAL = "ray"
TOKEN_BYTES = 32
PROXIES = ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY")  # variables that say how HTTP leaves a machine
NO_WAY_OUT = "http://127.0.0.1:9"  # nothing listens to port 9, "discard"
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
    with _fresh_token() if address == LOCAL else contextlib.nullcontext():
        with _keep_signal_handler(), _no_way_out() if address == LOCAL else contextlib.nullcontext():
            try:
                _require_listener(address)
                ray.init("local" if address == LOCAL else address, log_to_driver=False, logging_level="ERROR", **local)
            except Exception as error:  # Ray raises many kinds
                raise UsageError(
                    f"No Ray cluster at {address!r} ({one_line(error)}); start one with `ray start --head`, set "
                    f"RAY_AUTH_MODE=token if it asks for a token, or give --cluster {LOCAL} for one on this machine."
                ) from None
        try:
            if address == LOCAL:
                _require_loopback(ray.nodes())
            yield
        finally:
            ray.shutdown()


def listen_on_loopback() -> None:
    """Let a Ray that is started here listen to this machine alone. To be called before Ray is imported.

    It is what Ray does on macOS and Windows; on Linux it listens on all interfaces, whatever address it is given.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"


def proxies() -> dict[str, str]:
    """The variables of PROXIES that are set."""
    return {name: os.environ[name] for name in PROXIES if name in os.environ}


def restore_proxies(before: Mapping[str, str]) -> None:
    """Set the variables of PROXIES as they were."""
    for name in PROXIES:
        os.environ.pop(name, None)
    os.environ.update(before)


@contextlib.contextmanager
def _no_way_out() -> Iterator[None]:
    """Have what Ray starts send HTTP to nobody: it asks the cloud where it runs, though all reports are off.

    Its workers inherit this; each is given the driver's own variables back before it reads anything.
    """
    before = proxies()
    restore_proxies({"http_proxy": NO_WAY_OUT})
    try:
        yield
    finally:
        restore_proxies(before)


def _require_loopback(nodes: Sequence[dict[str, Any]]) -> None:
    """Raise UsageError where Ray was imported before `listen_on_loopback` was called."""
    if others := [node["NodeManagerAddress"] for node in nodes if not _is_loopback(node["NodeManagerAddress"])]:
        raise UsageError(
            f"Ray would listen at {others[0]} and not on this machine alone, since it was imported before; set "
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 before it is imported, or start a cluster yourself."
        )


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


@contextlib.contextmanager
def _fresh_token() -> Iterator[None]:
    """A token that only the processes of this run know, in place of the one that Ray would keep in the home folder."""
    names = ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE")
    before = {name: os.environ.pop(name, None) for name in names}  # without a mode Ray asks for a token
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(TOKEN_BYTES)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


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
