"""SIGTERM once lets every verb end in good order, twice ends it at once; neither leaves a process or half a result."""

import re
import shutil
import signal
import subprocess
import sys
import time
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
    net = ("--classifier", f"{MODELS}/small_net.py:build", "--classifier-weights", MODELS / "small_net.safetensors")
    verbs: dict[str, tuple[object, ...]] = {
        "calibrate": (bundle, "--images", clothes_folder, "--fpr", 0.05, "--confidence", 0.95),
        "tune": (bundle, "--images", clothes_folder),
        "export": ("--unet", MODELS / "unet", *net, "--output", tmp_path / "out" / "bundle"),
        "train-unet": ("--images", clothes_folder, "--output", tmp_path / "out" / "unet", "--steps", 10**6),
        "demo": ("--output", tmp_path / "out" / "demo"),
    }
    for verb, words in verbs.items():
        for times, after in ((1, 0.0), (2, 0.0), (1, 5.0), (2, 5.0)):
            with subtests.test(verb=verb, times=times, after=after):
                before = sorted(tmp_path.rglob("*")) if verb != "train-unet" else []
                process = subprocess.Popen(
                    [sys.executable, "-m", "diffood", verb, *map(str, words)],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                while not int(status_of(process.pid, "SigCgt"), 16) & CAUGHT:
                    time.sleep(0.01)
                time.sleep(after)
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
                if before and times == 1 and verb != "demo":
                    assert sorted(tmp_path.rglob("*")) == before
