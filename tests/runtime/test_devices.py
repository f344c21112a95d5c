"""What a user relies on, whatever runs: on the CPU here, and with `pytest -m gpu` on every GPU backend of the machine.

At the level of the detector and the command line; the contract of a session is in sessions/test_session_contract.py.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from cheap_calibration import CHEAPEST, calibrate_cheaply
from halved_graphs import add_halved_graphs

from diffood import zoo
from diffood.runtime.backends import BACKENDS
from diffood.runtime.bundle.bundle import Bundle, Precision, open_bundle
from diffood.runtime.bundle.calibration import load_calibration
from diffood.runtime.decision import DecisionRule
from diffood.runtime.detector import Detector
from diffood.runtime.sessions import SessionRequest
from diffood.runtime.sessions.backends import examine_backends
from diffood.runtime.sessions.engines import rebuild_command
from diffood.zoo.images import load_set, unpack_set

BATCH = 64
ROUNDS = 5  # of each thread
IMAGES = 1000
MOST_GROWTH = 32 << 20  # bytes over IMAGES images: a leak of one image's arrays would be several times as much
# Of a score, relative to the largest: between calls of one shape on one device, and between devices in FP32.
SAME, ACROSS = 1e-5, 1e-3

Pixels = npt.NDArray[np.uint8]

EVERYWHERE = [pytest.param(name, marks=pytest.mark.gpu if backend.gpu else ()) for name, backend in BACKENDS.items()]
ON_GPUS = [pytest.param(name, marks=pytest.mark.gpu) for name, backend in BACKENDS.items() if backend.gpu]


def require(backend: str) -> str:
    """The backend, if it can run here; otherwise the test is skipped with the reason."""
    found = next(entry for entry in examine_backends(None) if entry.backend == backend)
    if not found.usable:
        pytest.skip(f"{backend}: {found.reason}")
    return backend


def with_engine(path: Path, backend: str, precision: Precision) -> Bundle:
    """The bundle, with an engine where the backend needs one, built by the command that its refusal names."""
    bundle = open_bundle(path)
    if backend in ("tensorrt", "tensorrt-rtx"):
        from diffood.runtime.sessions.tensorrt import load_library

        machine = load_library(backend).machine  # type: ignore[arg-type]
        request = SessionRequest(bundle, CHEAPEST, precision, BATCH)  # what the bundle is calibrated with
        command = shlex.split(rebuild_command(request, machine))
        subprocess.run([sys.executable, "-m", *command], check=True, timeout=600)
    return bundle


@pytest.fixture(scope="module")
def calibrated(small_bundle: Bundle, clothes_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small bundle, calibrated on the CPU; read-only."""
    path = Path(shutil.copytree(small_bundle.path, tmp_path_factory.mktemp("devices") / "bundle"))
    return calibrate_cheaply(path, clothes_folder)


@pytest.fixture(scope="module", params=EVERYWHERE)
def device(
    request: pytest.FixtureRequest, calibrated: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Bundle]]:
    """Each backend of this machine, and the calibrated bundle with an engine for it."""
    backend = require(request.param)
    path = Path(shutil.copytree(calibrated, tmp_path_factory.mktemp(backend) / "bundle"))
    yield backend, with_engine(path, backend, "fp32")


def load(device: tuple[str, Bundle], batch: int = BATCH) -> Detector:
    backend, bundle = device
    return Detector.load(bundle, CHEAPEST, backend=backend, batch=batch, threads=1)


def assert_same_verdicts(bundle: Bundle, found: Any, wanted: Any, most_flips: int) -> None:
    """At the bundle's calibration, scores of one device and of the other."""
    rule = DecisionRule.of(load_calibration(bundle))
    decisions, expected = rule.decide(found.score, found.predicted), rule.decide(wanted.score, wanted.predicted)
    assert int((decisions.is_ood != expected.is_ood).sum()) <= most_flips
    assert 0 < int(expected.is_ood.sum()) < len(expected.is_ood)


def test_verdicts_are_those_of_fp32_on_the_cpu(device: tuple[str, Bundle]) -> None:
    images = np.concatenate([load_set("fashion-test").images[:300], load_set("digits").images[:100]])
    found, wanted = load(device).score(images), load(("onnxruntime-cpu", device[1]), 32).score(images)
    np.testing.assert_allclose(found.score, wanted.score, rtol=0, atol=ACROSS * float(wanted.score.max()))
    assert_same_verdicts(device[1], found, wanted, most_flips=1)


@pytest.mark.parametrize("backend", ON_GPUS)
def test_verdicts_in_fp16_are_those_of_fp32_on_the_cpu(backend: str, tmp_path: Path) -> None:
    """Of the trained models: 1,000 in-distribution images, of which two verdicts may flip."""
    require(backend)
    path = Path(shutil.copytree(zoo.BUNDLE, tmp_path / "bundle"))
    add_halved_graphs(path)
    unpack_set("fashion-validation", tmp_path / "images", 100)
    calibrate_cheaply(path, tmp_path / "images")
    bundle, images = with_engine(path, backend, "fp16"), load_set("fashion-test").images[:IMAGES]
    half = Detector.load(bundle, CHEAPEST, backend=backend, precision="fp16", batch=BATCH)
    assert_same_verdicts(bundle, half.score(images), Detector.load(bundle, CHEAPEST).score(images), most_flips=2)


def test_two_detectors_in_two_threads_do_not_disturb_each_other(device: tuple[str, Bundle], clothes: Pixels) -> None:
    detectors = [load(device, batch) for batch in (4, 7)]
    alone = [detector.score(clothes).score for detector in detectors]
    with ThreadPoolExecutor(len(detectors)) as pool:
        running = [
            pool.submit(lambda detector: [detector.score(clothes).score for _ in range(ROUNDS)], detector)
            for detector in detectors
        ]
    for wanted, found in zip(alone, running, strict=True):
        for score in found.result():
            np.testing.assert_allclose(score, wanted, rtol=SAME, atol=SAME)


def test_one_detector_in_several_threads_gives_each_its_own_verdicts(
    device: tuple[str, Bundle], clothes: Pixels
) -> None:
    detector = load(device, batch=8)
    wanted = detector.score(clothes).score
    parts = [clothes[start : start + 5] for start in range(0, len(clothes), 5)]
    with ThreadPoolExecutor(4) as pool:
        found = np.concatenate([scores.score for scores in pool.map(detector.score, parts)])
    np.testing.assert_allclose(found, wanted, rtol=SAME, atol=SAME)


def test_memory_stays_flat(device: tuple[str, Bundle]) -> None:
    detector, images = load(device), load_set("fashion-test").images[:IMAGES]
    detector.score(images[: 4 * BATCH])  # arenas and thread pools reach their size
    before = memory_in_use()
    detector.score(images)
    after = memory_in_use()
    assert {where: after[where] - before[where] < MOST_GROWTH for where in before} == dict.fromkeys(before, True)


def memory_in_use() -> dict[str, int]:
    """Bytes this process has resident, and bytes in use on the GPU where there is one."""
    statistics = Path("/proc/self/statm")
    if not statistics.exists():
        pytest.skip("only Linux says how much memory a process has now")
    found = {"host": int(statistics.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")}
    if any(entry.usable for entry in examine_backends(None) if BACKENDS[entry.backend].gpu):
        from cuda.bindings import runtime

        _, free, total = runtime.cudaMemGetInfo()
        found["device"] = total - free
    return found


# The command line in a process whose engine has so many bytes: ONNX Runtime's arena on the CPU, or on the GPU.
LIMITED = {
    "onnxruntime-cpu": """
import onnxruntime
arena = onnxruntime.OrtArenaCfg({"max_mem": LIMIT, "arena_extend_strategy": 1})
kinds = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
onnxruntime.create_and_register_allocator(onnxruntime.OrtMemoryInfo("Cpu", *kinds), arena)
made = onnxruntime.SessionOptions
def options():
    settings = made()
    settings.add_session_config_entry("session.use_env_allocators", "1")
    return settings
onnxruntime.SessionOptions = options
""",
    "onnxruntime-cuda": """
from diffood.runtime.sessions import onnxruntime_cuda
onnxruntime_cuda.OPTIONS |= {"gpu_mem_limit": str(LIMIT), "arena_extend_strategy": "kSameAsRequested"}
""",
}
IMAGES_AT_ONCE = 1024  # for which an engine that works on all of them needs some 100 megabytes


def test_a_large_batch_takes_no_more_of_a_cpu_engines_memory(calibrated: Path, tmp_path: Path) -> None:
    """Its calls have few images, whatever the batch."""
    unpack_set("fashion-test", tmp_path / "images", 100)
    wanted, found = (served("onnxruntime-cpu", calibrated, tmp_path, limit << 20) for limit in (4096, 30))
    assert found["rows"] == wanted["rows"]
    assert found["summary"]["batch"] == wanted["summary"]["batch"] == IMAGES_AT_ONCE


@pytest.mark.gpu
def test_a_run_continues_with_a_smaller_batch_when_the_engine_runs_out_of_memory(
    calibrated: Path, tmp_path: Path
) -> None:
    backend = "onnxruntime-cuda"
    require(backend)
    shutil.copytree(calibrated, tmp_path / "bundle")  # calibrated on the CPU; the gate lets the GPU through
    unpack_set("fashion-validation", tmp_path / "fresh", 300)
    words = ["verify", str(tmp_path / "bundle"), "--images", str(tmp_path / "fresh"), "--backend", backend]
    assert command(words).returncode == 0
    unpack_set("fashion-test", tmp_path / "images", 100)
    wanted = served(backend, tmp_path / "bundle", tmp_path, 4 << 30)
    assert wanted["summary"]["batch"] == IMAGES_AT_ONCE
    for mebibytes in (512, 256, 128, 64, 32):  # what a GPU needs is not known before
        found = served(backend, tmp_path / "bundle", tmp_path, mebibytes << 20)
        if found["summary"]["batch"] < IMAGES_AT_ONCE:
            break
    assert 1 <= found["summary"]["batch"] <= IMAGES_AT_ONCE // 2
    assert "out of memory" in found["said"].lower() or "do not fit into memory" in found["summary"]["engine"]
    assert [row["id"] for row in found["rows"]] == [row["id"] for row in wanted["rows"]]
    scores, expected = ([row["score"] for row in each["rows"]] for each in (found, wanted))
    assert scores == pytest.approx(expected, abs=1e-4)


def served(backend: str, bundle: Path, place: Path, limit: int) -> dict[str, Any]:
    """Rows and summary of a run whose engine may take `limit` bytes."""
    output = place / f"{limit}.jsonl"
    words = ["serve-batch", bundle, place / "images", "--backend", backend, "--batch", IMAGES_AT_ONCE, "--threads", 1]
    done = command([*words, "--output", output, "--json"], LIMITED[backend].replace("LIMIT", str(limit)))
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    return {"summary": json.loads(done.stdout), "rows": rows, "said": done.stderr}


def command(words: list[Any], before: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    program = f"import sys\n{before}\nfrom diffood.cli import main\nsys.argv[0] = 'diffood'\nmain()"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture
def serve_without_a_gpu(calibrated: Path, clothes_folder: Path, tmp_path: Path) -> Callable[..., Any]:
    """Serve on a backend in a process that sees no GPU, whatever this machine has."""

    def serve(backend: str) -> subprocess.CompletedProcess[str]:
        words = ["serve-batch", calibrated, clothes_folder, "--output", tmp_path / f"{backend}.jsonl"]
        return command([*words, "--backend", backend, "--threads", 1], CUDA_VISIBLE_DEVICES="")

    return serve


@pytest.mark.parametrize(
    "backend",
    [
        "onnxruntime-cuda",
        pytest.param("tensorrt", marks=pytest.mark.slow),
        pytest.param("tensorrt-rtx", marks=pytest.mark.slow),
    ],
)
def test_a_gpu_that_was_taken_away_is_an_error_in_one_line(
    backend: str, serve_without_a_gpu: Callable[..., Any]
) -> None:
    done = serve_without_a_gpu(backend)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_gpu_that_was_taken_away_leaves_the_cpu(serve_without_a_gpu: Callable[..., Any]) -> None:
    done = serve_without_a_gpu("auto")
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    assert "fp32 on onnxruntime-cpu" in done.stdout
