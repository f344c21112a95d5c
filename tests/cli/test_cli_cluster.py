"""serve-batch --cluster: the same file as without, and what is said where there is no cluster."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cheap_calibration import calibrate_cheaply

from diffood.errors import EXIT_SET_ASIDE, EXIT_WRONG_USAGE
from diffood.zoo.images import unpack_set

Run = Callable[..., Any]


@pytest.fixture
def bundle(small_bundle_copy: Path, clothes_folder: Path) -> Path:
    """A copy of the small bundle, calibrated to flag about half of all images."""
    return calibrate_cheaply(small_bundle_copy, clothes_folder, 0.5)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_a_killed_run_resumes_on_a_cluster(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'diffood[ray]'")
    unpack_set("digits", tmp_path / "digits", 500)
    command = [sys.executable, "-m", "diffood", "serve-batch", bundle, "digits", "--batch", "4", "--threads", "1"]
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


@pytest.mark.slow
def test_a_cluster_on_this_machine_writes_the_same_file(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'diffood[ray]'")
    unpack_set("digits", tmp_path / "in" / "digits", 30)
    (tmp_path / "in" / "broken.png").write_text("This is no image.\n")
    monkeypatch.chdir(tmp_path)  # inputs are relative to where the command was given
    command = ["serve-batch", bundle, "in", "--batch", "8", "--threads", "1"]
    alone = run(*command, "--output", "alone.jsonl", "--save-flagged", "alone")
    command += ["--output", "together.jsonl", "--save-flagged", "together", "--cluster", "ray"]
    # In a process of its own: where Ray was imported before, by another test, it is refused.
    together = subprocess.run([sys.executable, "-m", "diffood", *command], capture_output=True, text=True, check=False)
    assert (alone.code, together.returncode) == (EXIT_SET_ASIDE, EXIT_SET_ASIDE), together.stderr
    assert (tmp_path / "together.jsonl").read_bytes() == (tmp_path / "alone.jsonl").read_bytes()
    assert contents(tmp_path / "together") == contents(tmp_path / "alone") != {}
    assert [line for line in together.stdout.splitlines() if line.startswith(("engine", "set aside"))] == [
        line for line in alone.out.splitlines() if line.startswith(("engine", "set aside"))
    ]


def test_an_address_where_nothing_listens_is_wrong_usage(bundle: Path, tmp_path: Path, run: Run) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'diffood[ray]'")
    unpack_set("digits", tmp_path / "digits", 1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nobody else takes the port
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        words = ("serve-batch", bundle, tmp_path / "digits", "--output", tmp_path / "rows.jsonl")
        run(*words, "--cluster", address).assert_one_line(EXIT_WRONG_USAGE, f"No Ray cluster at '{address}'")


def test_a_missing_ray_names_the_extra(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    unpack_set("digits", tmp_path / "digits", 1)
    monkeypatch.setitem(sys.modules, "ray", None)  # what an import of a package that is not there finds
    words = ("serve-batch", bundle, tmp_path / "digits", "--output", tmp_path / "rows.jsonl", "--cluster", "ray")
    run(*words).assert_one_line(1, "pip install 'diffood[ray]'")
