"""Starts the Triton server that this machine has, on localhost alone, for the tests of what it serves."""

import contextlib
import http.client
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

PROTOCOLS = ["http", "grpc"]
START_SECONDS, STOP_SECONDS = 120, 60


def find_server(place: Path) -> list[str]:
    """The command that starts a server, without its ports and repository; skips if there is none.

    $DIFFOOD_TRITONSERVER is the binary of an installed one, with its backends in ../backends. nvidia-pytriton has one
    too, whose Python backend lacks the stub for this Python until it is copied there.
    """
    if given := os.environ.get("DIFFOOD_TRITONSERVER"):
        binary, backends = Path(given), Path(given).parent.parent / "backends"
    elif found := importlib.util.find_spec("pytriton"):
        assert found.origin is not None
        package = Path(found.origin).parent / "tritonserver"
        binary, backends = package / "bin" / "tritonserver", place / "backends"
        shutil.copytree(package / "backends", backends)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = "triton_python_backend_stub"
        shutil.copy(package / "python_backend_stubs" / version / stub, backends / "python" / stub)
    else:
        pytest.skip("no Triton server: install nvidia-pytriton, or set DIFFOOD_TRITONSERVER")
    for protocol in PROTOCOLS:
        pytest.importorskip(f"tritonclient.{protocol}", reason="no client: install tritonclient[http,grpc]")
    return [str(binary), "--backend-directory", str(backends), "--allow-metrics", "false"]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(command: Sequence[str], repository: Path, log: Path, ports: Sequence[int]) -> subprocess.Popen[bytes]:
    """A server on localhost alone; the Python of its models is the one that runs the tests."""
    # The stub's Python and pytriton's libraries are found by these two; another server does not mind them.
    libraries = Path(command[0]).parent / "../../../nvidia_pytriton.libs"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{os.environ.get('LD_LIBRARY_PATH', '')}:{libraries}",
    }
    addresses = [f"--{protocol}-address=127.0.0.1" for protocol in PROTOCOLS]
    numbers = [f"--{protocol}-port={port}" for protocol, port in zip(PROTOCOLS, ports, strict=True)]
    with log.open("wb") as file:
        return subprocess.Popen(
            [*command, f"--model-repository={repository}", *addresses, *numbers],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
        )


def is_ready(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False


@contextlib.contextmanager
def running(command: Sequence[str], repository: Path, log: Path) -> Iterator[dict[str, int]]:
    """Run a server with this repository; its ports by protocol. Nothing that it is sent may end it."""
    ports = free_ports(len(PROTOCOLS))
    process = start(command, repository, log, ports)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_ready(ports[0]):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield dict(zip(PROTOCOLS, ports, strict=True))
        assert process.poll() is None, log.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def refuse_to_start(command: Sequence[str], repository: Path, log: Path) -> str:
    """The log of a server that must not start with this repository."""
    process = start(command, repository, log, free_ports(len(PROTOCOLS)))
    try:
        assert process.wait(START_SECONDS) != 0
    finally:
        process.kill()
    return log.read_text()
