"""Stages as graphs against the commit before: python benchmarks/one_engine.py. Images a second, and one image alone.

Two processes, one for each version of the code on a bundle of its own, take turns on the same images, so that a change
of load hits both alike; ratios are within a round. Neither works while the other does. Takes some eight minutes.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pages import machine_line, machine_options, readable, record, table

from diffood.bench.machine import load_average
from diffood.zoo.images import unpack_set

BEFORE = "e216fdd"  # the last commit whose detector stepped lanes
PLANS = "default", "fast", "plain"
TARGETS = {"default": "≥ 1.15×", "fast": "≥ 1.0×", "plain": "≥ 1.0×"}
ALONE_TARGETS = {"default": "≤ 0.8×", "fast": "≤ 0.8×", "plain": ""}
SINGLES = 40  # single images of a round
SINGLE_BATCHES = {"before": (1, 2), "after": (1,)}  # the faster one counts: lanes of an image's repeats were worth it
CALIBRATED_ON, QUANTISED_ON = 300, 16
WORKER = """
import json, sys, time
from pathlib import Path
import numpy as np
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import load_calibrated_fusion, load_calibration
from diffood.runtime.detector import Detector
from diffood.runtime.images.pixels import from_pixels
from diffood.zoo.images import load_set

clothes, digits = (load_set(name).images for name in ("fashion-test", "digits"))
images = clothes[:, None].copy()
images[::10] = digits[: len(images[::10]), None]
if not hasattr(Detector, "score_pixels"):
    images = from_pixels(images)
opened = {}
for line in sys.stdin:
    bundle, precision, batch, threads, count, alone = json.loads(line)
    key = bundle, precision, batch
    if key not in opened:
        found = open_bundle(Path(bundle))
        calibration = load_calibration(found)
        fusion, plan = load_calibrated_fusion(found, calibration), calibration.fingerprint.plan
        opened[key] = Detector.load(found, plan, precision=precision, batch=batch, threads=threads, fusion=fusion)
        list(opened[key].stream(enumerate(images[:batch])))
    detector, taken = opened[key], images[np.arange(count) % len(images)]
    took = []
    for part in np.split(taken, count) if alone else [taken]:
        began = time.perf_counter()
        for _ in detector.stream(enumerate(part)):
            pass
        took.append(time.perf_counter() - began)
    print(json.dumps(took), flush=True)
"""


@dataclass(frozen=True)
class Version:
    """One version of the code, its bundles by plan, and a process that runs them."""

    name: str
    bundles: Path
    process: "subprocess.Popen[str]"

    def time(self, plan: str, precision: str, batch: int, threads: int, count: int, *, alone: bool) -> list[float]:
        """Seconds of a pass over so many images, or of each image alone."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        words = (str(self.bundles / plan), precision, batch, threads, count, alone)
        print(json.dumps(words), file=self.process.stdin, flush=True)
        found: list[float] = json.loads(self.process.stdout.readline())
        return found


def main() -> None:
    """Parse the command line, measure, write."""
    parser = machine_options(__doc__, batch=64)
    parser.add_argument("--before", default=BEFORE, help="commit to compare with")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", nargs="+", default=["fp32", "int8"])
    parser.add_argument("--seconds", type=float, default=3, help="of a plan in a round, before")
    given = parser.parse_args()
    load = load_average()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        place = Path(scratch)
        unpack_set("fashion-validation", place / "images", CALIBRATED_ON)
        trees = {"before": unpack_commit(given.before, place / "tree"), "after": Path(__file__).resolve().parents[1]}
        versions = [
            stack.enter_context(
                started(name, tree, make_bundles(tree, place / name, place / "images", given.precision))
            )
            for name, tree in trees.items()
        ]
        many, alone = measure(given, versions)
    write(given, many, alone, load)


def unpack_commit(commit: str, folder: Path) -> Path:
    """The files of a commit of this repository."""
    here = Path(__file__).resolve().parents[1]
    done = subprocess.run(["git", "-C", here, "archive", commit], stdout=subprocess.PIPE, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def make_bundles(tree: Path, folder: Path, images: Path, precisions: Sequence[str]) -> Path:
    """A folder with the embedded bundle of a version, in these precisions and calibrated by it, for each plan."""
    few = folder / "few"
    few.mkdir(parents=True)
    for image in sorted(images.iterdir())[:QUANTISED_ON]:
        os.link(image, few / image.name)
    base = folder / "base"
    subprocess.run(["cp", "-r", tree / "diffood/zoo/data/bundle", base], check=True)
    if "int8" in precisions:
        run_verb(tree, "export", "--bundle", base, "--precision", "int8", "--images", few)
    for plan in PLANS:
        subprocess.run(["cp", "-r", base, folder / plan], check=True)
        run_verb(tree, "calibrate", folder / plan, "--images", images, "--plan", plan)
    return folder


def run_verb(tree: Path, *words: object) -> None:
    """Run a verb of a version of diffood."""
    command = [sys.executable, "-m", "diffood", *map(str, words)]
    print(f"{tree.name}$ {' '.join(command[1:])}", file=sys.stderr, flush=True)
    subprocess.run(command, cwd=tree, env=environment_of(tree), stdout=subprocess.DEVNULL, check=True)


def environment_of(tree: Path) -> dict[str, str]:
    """The environment in which Python imports this version; the folder it starts in comes before that."""
    return {**os.environ, "PYTHONPATH": str(tree)}


@contextmanager
def started(name: str, tree: Path, bundles: Path) -> Iterator[Version]:
    """The process of a version, ended at the end."""
    command, pipe = [sys.executable, "-c", WORKER], subprocess.PIPE
    with subprocess.Popen(command, cwd=tree, env=environment_of(tree), stdin=pipe, stdout=pipe, text=True) as process:
        yield Version(name, bundles, process)
        assert process.stdin is not None
        process.stdin.close()


def measure(given: argparse.Namespace, versions: list[Version]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Seconds by "plan, precision" and version, one per round: many images at once, and the median of single ones."""
    many: dict[str, Any] = {}
    alone: dict[str, Any] = {}
    turn = 4 * given.batch
    for plan in PLANS:
        for precision in given.precision:
            what, threads = f"{plan}, {precision}", given.threads
            first = versions[0].time(plan, precision, given.batch, threads, turn, alone=False)[0]
            count = turn * max(1, round(given.seconds / first))
            many[what] = {"images": count, **{version.name: [] for version in versions}}
            alone[what] = {version.name: [] for version in versions}
            for number in range(given.rounds):
                for version in versions[:: -1 if number % 2 else 1]:
                    took = version.time(plan, precision, given.batch, threads, count, alone=False)
                    many[what][version.name] += took
                    singles = [
                        median(version.time(plan, precision, batch, threads, SINGLES, alone=True))
                        for batch in SINGLE_BATCHES[version.name]
                    ]
                    alone[what][version.name].append(min(singles))
            print(what, many[what], alone[what], file=sys.stderr, flush=True)
    return many, alone


def write(given: argparse.Namespace, many: dict[str, Any], alone: dict[str, Any], load: float | None) -> None:
    """Put the figures into README.md and results/."""
    content = {
        "before": given.before, "batch": given.batch, "rounds": given.rounds, "load_before": load,
        "load_after": load_average(), "seconds": many, "seconds_of_one_image": alone,
    }  # fmt: skip
    rates = [
        [
            what,
            *(readable(found["images"] / median(found[name])) for name in ("before", "after")),
            _ratio(found["before"], found["after"]),
            TARGETS[what.split(",")[0]],
        ]
        for what, found in many.items()
    ]
    singles = [
        [
            what,
            *(readable(1e3 * median(found[name])) for name in ("before", "after")),
            _ratio(found["after"], found["before"]),
            ALONE_TARGETS[what.split(",")[0]],
        ]
        for what, found in alone.items()
    ]
    lines = [
        machine_line(content),
        f"Batch {given.batch}, {given.threads or 'all'} threads, {given.rounds} rounds in turns with {given.before}; "
        "medians, in brackets the least and the most.",
        "",
        *table(("many images at once", "images/s before", "after", "times before", "target"), rates),
        "",
        *table(("one image alone", "p50 ms before", "after", "of the time before", "target"), singles),
    ]
    record("one_engine", content, lines)


def _ratio(dividends: list[float], divisors: list[float]) -> str:
    ratios = sorted(over / under for over, under in zip(dividends, divisors, strict=True))
    return f"{median(ratios):.2f}× ({ratios[0]:.2f}–{ratios[-1]:.2f})"


if __name__ == "__main__":
    main()
