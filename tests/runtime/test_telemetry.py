"""Nothing leaves the device: ONNX Runtime reports to nobody, in none of the processes that diffood starts."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from cheap_calibration import calibrate_cheaply
from offline import NOT_PERMITTED, run_offline
from small_models import CLASSIFIER, CLASSIFIER_WEIGHTS, FACTORY, SCHEDULER, UNET
from web_pages import make_package

from diffood.serving.triton.config import TritonSettings
from diffood.serving.triton.python_backend import write_decoding_model
from diffood.serving.triton.repository import ModelPlace
from diffood.serving.web.runtime import PACKAGE
from diffood.zoo.images import unpack_set

ROOT = Path(__file__).parents[2]
PREDICT = """
import sys
import numpy as np
from diffood import Detector
Detector.open(sys.argv[1], "plain", batch=1, threads=1).score(np.zeros((1, 28, 28), np.uint8))
"""


REACH = """
import contextlib, socket
with contextlib.suppress(OSError):
    socket.getaddrinfo("example.com", 80)
for family, host in ((socket.AF_INET, "198.51.100.7"), (socket.AF_INET6, "2001:db8:1::7")):
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as stream:
        stream.settimeout(0.1)
        stream.connect((host, 443))
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        datagrams.sendto(b"x", (host, 9))
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
"""
REACHED = {"udp 192.0.2.53:53", "tcp 198.51.100.7:443", "udp 198.51.100.7:9"}
REACHED |= {"tcp [2001:db8:1::7]:443", "udp [2001:db8:1::7]:9"}


def watch(tmp_path: Path, command: Sequence[object]) -> tuple[set[str], list[Path]]:
    """What a command of Python tries to reach, and what it leaves in its home folder.

    A variable such as CI would silence ONNX Runtime, so the processes get no more than what is named here.
    """
    (home := tmp_path / "home").mkdir(exist_ok=True)
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(home)}
    done, reached = run_offline([sys.executable, *map(str, command)], kept, tmp_path / "reached.json")
    if done.returncode == NOT_PERMITTED:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return set(reached), list(home.rglob("*"))


def test_what_is_reached_is_seen(tmp_path: Path) -> None:
    """Otherwise the tests below could not fail."""
    assert watch(tmp_path, ["-c", REACH]) == (REACHED, [])


def test_nothing_is_looked_up_sent_or_left_under_the_home_folder(
    small_bundle_copy: Path, folder: Path, tmp_path: Path
) -> None:
    """By the run and the processes that decode, by doctor, and by a program that uses diffood."""
    calibrate_cheaply(small_bundle_copy, folder)
    rows = tmp_path / "rows.csv"
    for command in (
        ["-m", "diffood", "serve-batch", small_bundle_copy, folder, "--output", rows, "--decoders", 2],
        ["-m", "diffood", "doctor"],
        ["-c", PREDICT, small_bundle_copy],
    ):
        assert watch(tmp_path, command) == (set(), []), command


def test_nor_by_the_model_that_triton_runs(small_bundle_copy: Path, folder: Path, tmp_path: Path) -> None:
    """Its own process imports model.py; the server around it is no package, and opens ports by its nature."""
    calibrate_cheaply(small_bundle_copy, folder)
    write_decoding_model(small_bundle_copy, ModelPlace(tmp_path / "models", "clothes"), TritonSettings(batch=8))
    image = next(folder.glob("*.png"))
    program = [ROOT / "tests" / "support" / "triton_stand_in.py", tmp_path / "models" / "clothes", image]
    assert watch(tmp_path, program) == (set(), [])


@pytest.mark.slow
def test_nor_by_any_other_verb(
    small_bundle_copy: Path, folder: Path, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """matplotlib keeps a list of this machine's fonts."""
    bundle, fresh, other = calibrate_cheaply(small_bundle_copy, folder), tmp_path / "fresh", tmp_path / "digits"
    unpack_set("fashion-test", fresh, 40)
    unpack_set("digits", other, 40)
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "key.pem"], check=True)
    rows, sets = tmp_path / "rows.jsonl", ["--ind", fresh, "--ood", f"digits={other}"]
    plan = ["--start-time", 120, "--stride", 120, "--repeats", 1, "--guidance", 0]
    for number, command in enumerate(
        (
            ["calibrate", bundle, "--images", folder, "--fpr", 0.1, "--overwrite", *plan],
            ["inspect", bundle],
            ["serve-batch", bundle, fresh, "--output", rows],
            ["evaluate", bundle, *sets],
            ["report", bundle, *sets, "--output", tmp_path / "report.html"],
            ["bench", bundle, "--images", fresh, "--seconds", 1],
            ["verify", bundle, "--images", fresh],
            ["monitor", rows, "--bundle", bundle],
            ["feedback", bundle, rows, "--tasks", tmp_path / "tasks.csv"],
            ["export-web", bundle, "--output", tmp_path / "page", "--runtime", make_package(tmp_path / PACKAGE)],
            ["export-triton", bundle, "--output", tmp_path / "models"],
            ["tune", bundle, *sets, "--images", 40, "--budget", 1],
            ["sign", bundle, "--key", tmp_path / "key.pem"],
        )
    ):
        with subtests.test(command[0]):
            (place := tmp_path / str(number)).mkdir()
            reached, left = watch(place, ["-m", "diffood", *command])
            assert reached == set()
            assert [path for path in left if path.is_file() and not path.name.startswith("fontlist")] == []


@pytest.mark.slow
def test_nor_by_builders_of_engines_or_by_export(
    small_bundle_copy: Path, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    build = ["export", "--bundle", small_bundle_copy, "--engine", "tensorrt-rtx", "--gpu", "sm86"]
    models = ["--unet", UNET, "--scheduler", SCHEDULER, "--classifier", f"{CLASSIFIER}:{FACTORY}"]
    weights = ["--classifier-weights", CLASSIFIER_WEIGHTS, "--output", tmp_path / "exported"]
    for library, command in (
        ("tensorrt_rtx", build),
        ("torch", ["export", *models, *weights]),
    ):
        with subtests.test(library):
            pytest.importorskip(library)
            assert watch(tmp_path, ["-m", "diffood", *command]) == (set(), [])


@pytest.mark.slow
def test_nor_by_ray(small_bundle_copy: Path, folder: Path, tmp_path: Path) -> None:
    """Its dashboard asks for the cloud it runs in, though reports are off; what it asks goes nowhere."""
    pytest.importorskip("ray")
    calibrate_cheaply(small_bundle_copy, folder)
    serve = ["serve-batch", small_bundle_copy, folder, "--output", tmp_path / "rows.csv", "--cluster", "ray"]
    assert watch(tmp_path, ["-m", "diffood", *serve]) == (set(), [])


def test_onnxruntime_imported_first_is_warned_of_unless_its_telemetry_is_off() -> None:
    program = "import sys; sys.modules['onnxruntime'] = sys; import diffood"
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    for variables, warned in (({}, True), ({"ORT_DISABLE_TELEMETRY": "1"}, False)):
        done = subprocess.run(
            [sys.executable, "-c", program], env=kept | variables, capture_output=True, text=True, check=True
        )
        assert ("import diffood first, or set ORT_DISABLE_TELEMETRY=1" in done.stderr) is warned


def test_programs_outside_the_package_turn_telemetry_off_before_onnxruntime_is_imported() -> None:
    """The package does so as its first act, and tests/conftest.py for the tests."""
    programs = [path for room in ("benchmarks", "research", "docs") for path in (ROOT / room).rglob("*.py")]
    for path in [*programs, ROOT / "tests" / "mutation" / "score.py"]:
        text = path.read_text()
        if found := re.search(r"^\s*(import|from) onnxruntime\b", text, re.MULTILINE):
            before = text[: found.start()]
            assert re.search(r"^\s*(import|from) diffood\b|ORT_DISABLE_TELEMETRY", before, re.MULTILINE), path
