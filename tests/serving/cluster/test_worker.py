"""A worker of a cluster, in this process: it scores as this machine does, and refuses another bundle or other files."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from diffood.errors import BundleError, CalibrationError, UsageError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import load_calibration, save_calibration
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import DEFAULT_LIMITS
from diffood.runtime.inputs.decoding import IN_THREADS
from diffood.runtime.inputs.items import Item, LocalFile
from diffood.serving.cluster.connection import NO_WAY_OUT, PROXIES, proxies
from diffood.serving.cluster.worker import FileProbe, Worker, WorkerConfig, identify
from diffood.serving.local import LocalScorer
from diffood.serving.rows.row import Row


@pytest.fixture
def config(bundle: Path) -> WorkerConfig:
    """What a worker on this machine is given."""
    opened = open_bundle(bundle)
    identity = identify(opened, load_calibration(opened))
    return WorkerConfig(
        bundle, identity, Path.cwd(), "onnxruntime-cpu", None, 8, 1, DEFAULT_LIMITS, IN_THREADS, pictures=True
    )


def test_a_worker_has_the_proxies_of_the_run_and_not_those_of_ray(
    config: WorkerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, NO_WAY_OUT)
    Worker(config)
    assert proxies() == dict.fromkeys(PROXIES, NO_WAY_OUT)  # a cluster that was there has its own
    given = {"HTTP_PROXY": "http://proxy.example:3128", "no_proxy": "localhost"}
    Worker(replace(config, proxies=given))
    assert proxies() == given


def test_a_worker_opens_only_the_bundle_of_the_run(config: WorkerConfig) -> None:
    cases = [
        (replace(config.identity, diffood="0.0.1"), UsageError, "started with 0.0.1; install one version"),
        (replace(config.identity, manifest_sha256="0" * 64), BundleError, "manifest.json differs from the one"),
        (replace(config.identity, calibration_sha256="0" * 64), BundleError, "calibration.json differs from the one"),
    ]
    for identity, error, message in cases:
        with pytest.raises(error, match=message):
            Worker(replace(config, identity=identity)).open()


def test_a_worker_refuses_a_calibration_for_another_engine(config: WorkerConfig, tmp_path: Path, bundle: Path) -> None:
    path = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    calibration = load_calibration(open_bundle(path))
    other = calibration.fingerprint.model_copy(update={"step_sha256": "0" * 64})
    save_calibration(open_bundle(path), calibration.model_copy(update={"fingerprint": other}))
    with pytest.raises(CalibrationError, match="step_sha256"):
        Worker(replace(config, bundle=path)).open()


def test_a_worker_gives_the_rows_and_pictures_of_this_machine(
    config: WorkerConfig, bundle: Path, sources: list[Item]
) -> None:
    detector = Detector.open(bundle, batch=8, threads=1)
    scorer = LocalScorer(detector, detector.calibration(), pictures=True)
    expected = [(scored.row, scored.picture) for scored in scorer.rows(sources[-40:])]
    worker = Worker(config)
    ready = worker.open()
    assert ready.fingerprint == detector.fingerprint
    assert worker.score(sources[-40:], None) == expected
    assert [picture is not None for _, picture in expected] == [bool(row.is_ood) for row, _ in expected]
    assert {picture is None for _, picture in expected} == {True, False}


def test_a_machine_that_sees_other_files_is_refused(
    config: WorkerConfig, sources: list[Item], local_rows: list[Row]
) -> None:
    worker = Worker(config)
    worker.open()
    found = worker.score(sources[:9], FileProbe(sources[0], local_rows[0].sha256))
    assert [row for row, _ in found] == local_rows[:9]
    with pytest.raises(UsageError, match="differs from the file where the run was started"):
        worker.score(sources[:9], FileProbe(sources[1], local_rows[0].sha256))
    gone = LocalFile("gone.png", Path("/nowhere/gone.png"))
    with pytest.raises(UsageError, match="mount the inputs at the same path"):
        worker.score(sources[:9], FileProbe(gone, local_rows[0].sha256))
