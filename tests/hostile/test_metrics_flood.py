"""Attack: a flood of connections to the metrics, and connections that never end, on a process with few descriptors."""

import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of descriptors as Linux has them")

SERVER = """
import resource, sys
from diffood.serving.output.summary import Tally
from diffood.serving.watching import metrics
metrics.SECONDS_FOR_A_REQUEST = {seconds}
resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
with metrics.serving_metrics(0, Tally(), "fp32", "cpu") as url:
    print(url, flush=True)
    for line in sys.stdin:
        files = [open("/dev/null") for _ in range(int(line))]
        print(len(files), flush=True)
"""


@contextmanager
def server(seconds: float) -> Iterator["subprocess.Popen[str]"]:
    """A run's metrics. For each number that it reads it opens as many files."""
    command = [sys.executable, "-c", SERVER.format(seconds=seconds)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_flood_takes_no_descriptors_from_the_run_and_keeps_no_scrape_out() -> None:
    with server(seconds=600) as process, ExitStack() as flood:
        assert process.stdin
        assert process.stdout
        url = process.stdout.readline().strip()
        port = int(url.split(":")[2].split("/")[0])
        for number in range(200):
            connection = flood.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            if number % 2:
                connection.sendall(b"GET /metr")
        process.stdin.write("25\n")
        process.stdin.flush()
        assert process.stdout.readline() == "25\n"
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert "diffood_files_total" in answer.read().decode()
        flood.close()
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")


def test_a_connection_that_sends_a_byte_now_and_then_is_ended() -> None:
    with server(seconds=0.5) as process:
        assert process.stdout
        port = int(process.stdout.readline().split(":")[2].split("/")[0])
        with socket.create_connection(("127.0.0.1", port), timeout=0.1) as connection:
            for _ in range(300):
                try:
                    connection.sendall(b"G")
                    answer = connection.recv(100)
                except TimeoutError:
                    continue
                except OSError:  # reset
                    answer = b""
                break
            else:
                pytest.fail("It was never ended.")
        assert answer == b""
