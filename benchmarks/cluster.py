"""What a cluster costs on one machine: python benchmarks/cluster.py. Local runs and Ray's, in turns on the same files.

The plan is the cheapest there is, so that whatever a cluster adds shows: with a slower one the share is smaller. What
starting takes is told apart, since it is paid once. Bytes a row are those of files without doubles.
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
from serving import CHEAPEST, link

from diffood.bench.machine import load_average
from diffood.zoo.images import unpack_set


def main() -> None:
    """Parse the command line, measure, write."""
    parser = machine_options(__doc__, batch=32)
    parser.add_argument("--files", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    cores = given.threads or os.cpu_count() or 1
    contenders = {
        f"one process, {cores} threads": ("--threads", cores),
        f"Ray, a worker of {cores} threads": ("--threads", cores, "--cluster", "ray"),
        f"Ray, {cores} workers of one thread": ("--threads", 1, "--cluster", "ray"),
    }
    before = load_average()
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    others: dict[str, list[float]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        bundle = copy_zoo(place / "bundle")
        unpack_set("fashion-validation", place / "validation", 500)
        unpack_set("fashion-test", place / "originals")
        diffood("calibrate", bundle, "--images", place / "validation", *CHEAPEST, "--batch", given.batch)
        folder = link(place / "originals", place / "files", given.files)
        for repeat in range(given.repeats):
            for name in np.roll(list(contenders), repeat):
                summary, seconds = serve(
                    bundle, folder, place / "rows.jsonl", (*contenders[name], "--batch", given.batch)
                )
                rates[name].append(summary["images_per_second"])
                others[name].append(seconds - summary["seconds"])
        sizes = {}
        originals = len(list((place / "originals").iterdir()))
        for ending in ("jsonl", "csv", "parquet"):
            rows = place / f"once.{ending}"
            serve(bundle, place / "originals", rows, (), given.batch)
            sizes[ending] = rows.stat().st_size / originals
    content = {
        "load_before": before, "load_after": load_average(), "images_per_second": rates, "outside": others,
        "bytes_a_row": sizes,
    }  # fmt: skip
    first = float(np.median(rates[next(iter(rates))]))
    cells = [
        [name, f"{np.median(found):.0f}", f"{np.median(found) / first:.2f}", f"{np.median(others[name]):.1f}"]
        for name, found in rates.items()
    ]
    lines = [
        machine_line(content),
        f"{given.files:,} files, batch {given.batch}; medians of {given.repeats} runs.",
        "",
        *table(("", "images/s", "times the first", "starting and ending, s"), cells),
        "",
        f"Bytes a row: {', '.join(f'{ending} {size:.0f}' for ending, size in sizes.items())}.",
    ]
    record("cluster", content, lines)


def serve(
    bundle: Path, inputs: Path, rows: Path, machine: tuple[object, ...], batch: int
) -> tuple[dict[str, float], float]:
    """The summary of one run in a process of its own, and the seconds that process lived."""
    rows.unlink(missing_ok=True)
    words = ("serve-batch", bundle, inputs, "--output", rows, *machine, "--batch", batch, "--json")
    start = time.monotonic()
    command = [sys.executable, "-m", "diffood", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.monotonic() - start
    summary: dict[str, float] = json.loads(done.stdout)
    print(f"{summary['files']} files, {summary['images_per_second']:.0f} images/s", file=sys.stderr, flush=True)
    return summary, seconds


if __name__ == "__main__":
    main()
