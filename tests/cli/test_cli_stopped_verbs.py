"""SIGTERM once lets every verb end in good order, twice ends it at once; neither leaves a process or half a result."""

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from diffood.runtime.bundle.bundle import Bundle

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="processes as Linux shows them")]

MODELS = Path(__file__).parents[1] / "data" / "small_models"
CAUGHT = 1 << (signal.SIGTERM - 1)


def status_of(process: int, name: str) -> str:
    """A line of what Linux says of a process; "" if it has ended."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    state, found = (re.search(rf"^{key}:\s*(\w+)", text, re.MULTILINE) for key in ("State", name))
    return "" if state is None or found is None or state[1] in "ZX" else found[1]


def descendants(process: int) -> list[int]:
    """The processes that a process and its children started."""
    lists = Path(f"/proc/{process}/task").glob("*/children")
    children = [int(number) for each in lists for number in each.read_text().split()]
    return [*children, *(number for child in children for number in descendants(child))]


def test_every_verb_ends_by_signals(
    small_bundle: Bundle, clothes_folder: Path, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    bundle = shutil.copytree(small_bundle.path, tmp_path / "bundle")
    out = tmp_path / "out"
    net = ("--classifier", f"{MODELS}/small_net.py:small_net", "--classifier-weights", MODELS / "small_net.safetensors")
    verbs: dict[str, tuple[tuple[object, ...], Callable[[int], object]]] = {
        "calibrate": ((bundle, "--images", "-"), lambda process: True),  # it waits for a list of images
        "tune": ((bundle, "--images", "-"), lambda process: True),
        "export": (
            ("--unet", MODELS / "unet", *net, "--output", out / "bundle"),
            lambda process: "libtorch" in Path(f"/proc/{process}/maps").read_text(),
        ),
        "train-unet": (
            ("--images", clothes_folder, "--output", out / "unet", "--steps", 10**6),
            lambda process: any((out / "unet").glob("*")),
        ),
        "demo": (("--output", out / "demo"), descendants),
    }
    for verb, (words, is_at_work) in verbs.items():
        for times, at_work in ((1, False), (2, False), (1, True), (2, True)):
            with subtests.test(verb=verb, times=times, at_work=at_work):
                before = sorted(tmp_path.rglob("*"))
                process = subprocess.Popen(
                    [sys.executable, "-m", "diffood", verb, *map(str, words)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                while not int(status_of(process.pid, "SigCgt"), 16) & CAUGHT:
                    time.sleep(0.01)
                while at_work and not is_at_work(process.pid):
                    time.sleep(0.01)
                children = descendants(process.pid)
                for _ in range(times):
                    process.send_signal(signal.SIGTERM)
                    while int(status_of(process.pid, "ShdPnd") or "0", 16):
                        time.sleep(0.001)
                _, err = process.communicate(timeout=60)
                assert process.returncode in ((143,) if times == 1 else (143, -15)), err
                assert "Traceback" not in err
                while any(status_of(child, "State") for child in children):
                    time.sleep(0.01)
                if times == 1 and verb in ("calibrate", "tune", "export"):
                    assert sorted(tmp_path.rglob("*")) == before
