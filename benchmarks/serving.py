"""serve-batch at 1,000 to 200,000 files: python benchmarks/serving.py. Memory, and what ten times the files cost.

Every size runs in a process of its own. Files are hard links to the embedded test images, and the plan is the cheapest
there is (one UNet evaluation), so that whatever grows with the number of files shows. In turns with the sizes
the same images are scored from memory, by the engine and what feeds it alone: the most that serving could reach.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pages import copy_zoo, diffood, machine_line, machine_options, record, table

from diffood.calibration.machine import load_average
from diffood.runtime.detector import Detector
from diffood.runtime.images import DEFAULT_LIMITS, load_image
from diffood.zoo.images import unpack_set

CHEAPEST = ("--plan", "plain", "--start-time", 120, "--stride", 120, "--repeats", 1, "--guidance", 0)
OFTEN = 50_000  # files up to which a size is served as often as the others
IN_MEMORY = 5_000  # images of a measurement without files
A_FOLDER = 1000  # files; a folder of 100,000 would time the file system
MEASURED = """
import atexit, pathlib, runpy, sys
from diffood.calibration.machine import peak_resident_bytes

target = pathlib.Path(sys.argv.pop(1))
atexit.register(lambda: target.write_text(str(peak_resident_bytes())))
runpy.run_module("diffood", run_name="__main__")
"""


def main() -> None:
    """Parse the command line, measure, write."""
    parser = machine_options(__doc__, batch=32)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 200_000], help="ascending")
    parser.add_argument("--repeats", type=int, default=3, help=f"in turns, of sizes up to {OFTEN:,}; one of others")
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
        seconds: dict[int, list[float]] = {size: [] for size in given.sizes}
        peaks: dict[int, list[int]] = {size: [] for size in given.sizes}
        rates = []
        for repeat in range(given.repeats):
            rates.append(rate_in_memory(bundle, place / "originals", given.batch, given.threads))
            for size in [size for size in given.sizes if repeat == 0 or size <= OFTEN]:
                took, peak = serve(bundle, folders[size], place / "rows.jsonl", machine)
                seconds[size].append(took)
                peaks[size].append(peak)
    content = {"load_before": before, "load_after": load_average(), "seconds": seconds, "peak_bytes": peaks}
    content["images_a_second_from_memory"] = rates
    rows = []
    for smaller, size in zip([None, *given.sizes], given.sizes, strict=False):
        took, peak = float(np.median(seconds[size])), max(peaks[size])
        cost = f"{took / np.median(seconds[smaller]):.2f}× for {size / smaller:.3g}×" if smaller else "–"
        memory = f"{peak / max(peaks[given.sizes[0]]):.3f}×"
        share = f"{100 * size / took / np.median(rates):.0f} %"
        rows.append([f"{size:,}", f"{took:.1f}", f"{size / took:.0f}", share, cost, f"{peak / 1e6:.0f}", memory])
    heads = ("files", "seconds", "images/s", "of the rate from memory", "cost", "peak MB", "against the fewest")
    lines = [
        machine_line(content),
        f"Batch {given.batch}, {given.threads or 'all'} threads; seconds are medians of {given.repeats} runs (above "
        f"{OFTEN:,} files: one run), from the summary, reading, decoding and writing included, starting up not. From "
        f"memory: {np.median(rates):.0f} images/s ({min(rates):.0f} to {max(rates):.0f}), measured in turns with them.",
        "",
        *table(heads, rows),
        "",
        "Asked for: memory ≤ 1.05×, ten times the files ≤ 10.1×.",
    ]
    record("serving", content, lines)


def rate_in_memory(bundle: Path, originals: Path, batch: int, threads: int) -> float:
    """Images a second of the calibrated plan on images that are decoded already."""
    detector = Detector.open(bundle, batch=batch, threads=threads)
    x = [load_image(path, detector.bundle.manifest.image, DEFAULT_LIMITS).x for path in sorted(originals.iterdir())]
    images = [image for image in x if image is not None]
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
