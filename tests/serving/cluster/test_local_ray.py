"""`--cluster ray` is for this machine and this run: it listens on loopback, and asks for a token that is in no file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffood.errors import UsageError
from diffood.serving.cluster.connection import _require_loopback

ROOT = Path(__file__).parents[3]
OUTSIDER = """
import sys, ray
try:
    ray.init(sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
except Exception as error:
    raise SystemExit(17)
print(ray.nodes())
"""
# Opens a worker; prints the addresses at which its processes listen, and how an outsider without the token ended.
INSIDER = """
import os, subprocess, sys
from pathlib import Path
from diffood.serving.cluster.open import open_cluster
from diffood.serving.request import ScorerRequest

def family(process):
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        yield child
        yield from family(child)

def sockets(process):
    for entry in Path(f"/proc/{process}/fd").iterdir():
        try:
            yield os.readlink(entry)
        except OSError:
            pass

with open_cluster("ray", ScorerRequest(Path(sys.argv[1]), batch=8, threads=1)) as opened:
    assert opened.engine
    import ray
    ours = {link for process in [str(os.getpid()), *family(os.getpid())] for link in sockets(process)}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in ours:
                print(fields[1].rpartition(":")[0])
    address = ray.get_runtime_context().gcs_address
    without = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    print(subprocess.run([sys.executable, "-c", sys.argv[2], address], env=without, timeout=120).returncode)
assert "RAY_AUTH_TOKEN" not in os.environ
"""
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def test_a_ray_that_others_reach_is_refused() -> None:
    _require_loopback([{"NodeManagerAddress": "127.0.0.1"}, {"NodeManagerAddress": "::1"}])
    with pytest.raises(UsageError, match=r"Ray would listen at 10\.0\.0\.1 and not on this machine alone"):
        _require_loopback([{"NodeManagerAddress": "10.0.0.1"}])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_it_listens_on_loopback_and_asks_for_a_token_that_is_in_no_file(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'diffood[ray]'")
    (home := tmp_path / "home").mkdir()
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(home), "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-c", INSIDER, bundle, OUTSIDER], env=kept, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *addresses, outsider = done.stdout.split()
    assert len(addresses) > 3, "the processes of Ray were not found"
    assert set(addresses) <= LOOPBACK
    assert outsider == "17"
    assert list(home.rglob("*")) == []
