"""serve-batch --cluster: the same file as without, and what is said where there is no cluster."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffood import cli
from diffood.calibration.calibrate import calibrate
from diffood.calibration.scored_files import score_sources
from diffood.errors import EXIT_SET_ASIDE, EXIT_WRONG_USAGE
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import save_calibration
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.plan import Plan
from diffood.zoo.images import unpack_set

CHEAPEST = Plan(start_times=(120,), stride=120, repeats=1, guidance=0.0)


@pytest.fixture
def calibrated(bundle_copy: Path, clothes_folder: Path) -> Path:
    """A bundle calibrated with the cheapest plan."""
    detector = Detector.load(open_bundle(bundle_copy), CHEAPEST, batch=8, threads=1)
    files = score_sources(detector, list_inputs([str(clothes_folder)]))
    save_calibration(detector.bundle, calibrate(detector, files, 0.05, 0.95, "pac"))
    return bundle_copy


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The exit code of one command."""
    monkeypatch.setattr(sys, "argv", ["diffood", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_that_was_killed_goes_on_with_a_cluster(calibrated: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'diffood[ray]'")
    unpack_set("digits", tmp_path / "digits", 60)
    command = [sys.executable, "-m", "diffood", "serve-batch", calibrated, "digits", "--batch", "4", "--threads", "1"]
    subprocess.run([*command, "--output", "whole.jsonl"], cwd=tmp_path, check=True)
    killed = subprocess.Popen([*command, "--output", "rows.jsonl"], cwd=tmp_path)
    partial = tmp_path / "rows.jsonl.partial"
    while not (partial.exists() and partial.stat().st_size) and killed.poll() is None:
        time.sleep(0.001)
    killed.kill()
    killed.wait()
    assert not (tmp_path / "rows.jsonl").exists(), "the run was over before it was killed"
    subprocess.run([*command, "--output", "rows.jsonl", "--resume", "--cluster", "ray"], cwd=tmp_path, check=True)
    assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_cluster_of_this_machine_writes_the_same_file(
    calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'diffood[ray]'")
    unpack_set("digits", tmp_path / "in" / "digits", 30)
    (tmp_path / "in" / "broken.png").write_text("This is no image.\n")
    monkeypatch.chdir(tmp_path)  # inputs are relative to where the command was given
    command = ["serve-batch", calibrated, "in", "--batch", 8, "--threads", 1]
    assert run(monkeypatch, *command, "--output", "alone.jsonl", "--save-flagged", "alone") == EXIT_SET_ASIDE
    alone = capsys.readouterr().out
    words = [*command, "--output", "together.jsonl", "--save-flagged", "together", "--cluster", "ray"]
    assert run(monkeypatch, *words) == EXIT_SET_ASIDE
    together = capsys.readouterr().out
    assert (tmp_path / "together.jsonl").read_bytes() == (tmp_path / "alone.jsonl").read_bytes()
    assert contents(tmp_path / "together") == contents(tmp_path / "alone") != {}
    assert [line for line in together.splitlines() if line.startswith(("engine", "set aside"))] == [
        line for line in alone.splitlines() if line.startswith(("engine", "set aside"))
    ]


def test_an_address_where_nothing_listens_is_wrong_usage(
    calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'diffood[ray]'")
    unpack_set("digits", tmp_path / "digits", 1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nobody else takes the port
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        words = ["serve-batch", calibrated, tmp_path / "digits", "--output", tmp_path / "rows.jsonl"]
        assert run(monkeypatch, *words, "--cluster", address) == EXIT_WRONG_USAGE
    said = capsys.readouterr().err
    assert f"No Ray cluster at '{address}'" in said
    assert "Traceback" not in said


def test_a_missing_ray_names_the_extra(
    calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unpack_set("digits", tmp_path / "digits", 1)
    monkeypatch.setitem(sys.modules, "ray", None)  # what an import of a package that is not there finds
    words = ["serve-batch", calibrated, tmp_path / "digits", "--output", tmp_path / "rows.jsonl", "--cluster", "ray"]
    assert run(monkeypatch, *words) == 1
    assert "pip install 'diffood[ray]'" in capsys.readouterr().err
