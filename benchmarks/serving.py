"""serve-batch at 1,000 to 100,000 files: python benchmarks/serving.py. Memory, and what ten times the files cost.

Every run is a process of its own. Files are hard links to the embedded test images, and the plan is the cheapest
there is (one UNet evaluation), so that whatever grows with the number of files shows. A turn goes through the sizes
upwards and down again, and compares the means of each, so that a machine that gets faster or slower meanwhile hits all
alike. Before each turn the same images are scored from memory, by the engine and what feeds it alone: the most that
serving could reach.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pages import NONE, copy_zoo, diffood, machine_line, machine_options, record, table

from diffood.bench.machine import load_average
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import DEFAULT_LIMITS, load_image
from diffood.zoo.images import unpack_set

CHEAPEST = ("--plan", "plain", "--start-time", 120, "--stride", 120, "--repeats", 1, "--guidance", 0)
IN_MEMORY = 5_000  # images of a measurement without files
A_FOLDER = 1000  # files; a folder of 100,000 would time the file system
MEASURED = """
import atexit, pathlib, runpy, sys
from diffood.bench.machine import peak_resident_bytes

target = pathlib.Path(sys.argv.pop(1))
atexit.register(lambda: target.write_text(str(peak_resident_bytes())))
runpy.run_module("diffood", run_name="__main__")
"""


def main() -> None:
    """Parse the command line, measure, write."""
    parser = machine_options(__doc__, batch=32)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="ascending")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    before = load_average()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        bundle = copy_zoo(place / "bundle")
        unpack_set("fashion-validation", place / "validation", 500)
        unpack_set("fashion-test", place / "originals")
        machine = ("--batch", given.batch, "--threads", given.threads)
        diffood("calibrate", bundle, "--images", place / "validation", *CHEAPEST, *machine)
        folders = {size: link(place / "originals", place / str(size), size) for size in given.sizes}
        peaks: dict[int, list[int]] = {size: [] for size in given.sizes}
        turns: list[dict[int, list[float]]] = []
        rates = []
        for _ in range(given.turns):
            rates.append(rate_in_memory(bundle, place / "originals", given.batch, given.threads))
            turns.append({size: [] for size in given.sizes})
            for size in (*given.sizes, *given.sizes[-2::-1]):
                took, peak = serve(bundle, folders[size], place / "rows.jsonl", machine)
                turns[-1][size].append(took)
                peaks[size].append(peak)
    content = {"load_before": before, "load_after": load_average(), "seconds": turns, "peak_bytes": peaks}
    content["images_a_second_from_memory"] = rates
    means = {size: np.array([np.mean(turn[size]) for turn in turns]) for size in given.sizes}
    rows = []
    for smaller, size in zip([None, *given.sizes], given.sizes, strict=False):
        took, peak = float(np.median(means[size])), max(peaks[size])
        cost = f"{spread(means[size] / means[smaller])} for {size / smaller:.3g}×" if smaller else NONE
        memory = f"{peak / max(peaks[given.sizes[0]]):.3f}×"
        share = f"{100 * size / took / np.median(rates):.0f} %"
        rows.append([f"{size:,}", f"{took:.1f}", f"{size / took:.0f}", share, cost, f"{peak / 1e6:.0f}", memory])
    heads = ("files", "seconds", "images/s", "of the rate from memory", "cost", "peak MB", "against the fewest")
    lines = [
        machine_line(content),
        f"Batch {given.batch}, {given.threads or 'all'} threads, turns: {given.turns}; seconds are from the summary, "
        "reading, decoding and writing included, starting up not: medians over the turns of a size's mean, cost that "
        f"of the turns' ratios (in brackets the least and the most). From memory: {np.median(rates):.0f} images/s "
        f"({min(rates):.0f} to {max(rates):.0f}).",
        "",
        *table(heads, rows),
        "",
        "Target: memory ≤ 1.05×, ten times the files ≤ 10.1×.",
    ]
    record("serving", content, lines)


def spread(ratios: npt.NDArray[np.float64]) -> str:
    """The median, and the least and the most."""
    return f"{np.median(ratios):.2f}× ({ratios.min():.2f}–{ratios.max():.2f})"


def rate_in_memory(bundle: Path, originals: Path, batch: int, threads: int) -> float:
    """Images a second of the calibrated plan on images that are decoded already."""
    detector = Detector.open(bundle, batch=batch, threads=threads)
    shape = detector.bundle.manifest.image
    found = [load_image(path, shape, DEFAULT_LIMITS).pixels for path in sorted(originals.iterdir())]
    images = [pixels for pixels in found if pixels is not None]
    items = ((index, images[index % len(images)]) for index in range(IN_MEMORY))
    start = time.monotonic()
    scored = sum(1 for _ in detector.stream(items))
    return scored / (time.monotonic() - start)


def link(originals: Path, folder: Path, count: int) -> Path:
    """A folder of `count` hard links to the originals, in turn."""
    sources = sorted(originals.iterdir())
    for index in range(count):
        inner = folder / f"{index // A_FOLDER:03d}"
        if index % A_FOLDER == 0:
            inner.mkdir(parents=True)
        os.link(sources[index % len(sources)], inner / f"{index:06d}.png")
    return folder


def serve(bundle: Path, folder: Path, rows: Path, machine: tuple[object, ...]) -> tuple[float, int]:
    """(seconds, peak resident bytes) of one run in a process of its own."""
    rows.unlink(missing_ok=True)
    peak = rows.with_name("peak")
    words = ("serve-batch", bundle, folder, "--output", rows, *machine, "--json")
    command = [sys.executable, "-c", MEASURED, *map(str, (peak, *words))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    summary = json.loads(done.stdout)
    print(f"{summary['files']} files in {summary['seconds']:.1f} s", file=sys.stderr, flush=True)
    return summary["seconds"], int(peak.read_text())


if __name__ == "__main__":
    main()
