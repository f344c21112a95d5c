"""Lanes at work: python benchmarks/lanes.py. Counts the rows of every step that carry an image, over 10,000 images.

The bundle's default plan, calibrated, on clothes among which one image in ten is of something else.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from pages import copy_zoo, diffood, machine_line, machine_options, readable, record, share, table

from diffood.bench.machine import load_average
from diffood.bench.metered import open_detector
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import load_calibration
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.scoring import Array
from diffood.zoo.images import SETS, load_set, unpack_set

ONE_IN, SEED = 10, 0  # one image in so many is of something else


def main() -> None:
    """Parse the command line, measure, write."""
    parser = machine_options(__doc__, batch=32)
    parser.add_argument("--images", type=int, default=10_000)
    given = parser.parse_args()
    before = load_average()
    with tempfile.TemporaryDirectory() as scratch:
        bundle, images = copy_zoo(Path(scratch, "bundle")), Path(scratch, "validation")
        unpack_set("fashion-validation", images)
        diffood("calibrate", bundle, "--images", images, "--batch", given.batch, "--threads", given.threads)
        plan = load_calibration(open_bundle(bundle)).fingerprint.plan
        runner = open_detector(bundle, plan, "onnxruntime-cpu", "fp32", given.threads, given.batch)
        x = draw(given.images)
        began = time.perf_counter()
        evaluations = runner.run(x)
        seconds = time.perf_counter() - began
    meter = runner.meter
    content = {
        "load_before": before,
        "load_after": load_average(),
        "plan": plan.model_dump(mode="json"),
        "images": given.images,
        "lanes_busy": meter.busy / meter.rows,
        "evaluations_an_image": evaluations / given.images,
        "engine_share": meter.seconds / seconds,
        "seconds": seconds,
    }
    row = [
        f"{given.images:,}",
        share(content["lanes_busy"]),
        readable(content["evaluations_an_image"]),
        share(content["engine_share"]),
        readable(given.images / seconds),
    ]
    lines = [
        machine_line(content),
        f"Batch {given.batch}, {given.threads or 'all'} threads. Plan: {plan.model_dump_json(exclude_defaults=True)}.",
        "",
        *table(("images", "lanes busy", "UNet evaluations an image", "in the engine", "images/s"), [row]),
        "",
        "Target: lanes busy ≥ 98 %.",
    ]
    record("lanes", content, lines)


def draw(count: int) -> Array:
    """Clothes and, one in ten, an image of an OOD set, in an order of chance; each set in a circle."""
    known = load_set("fashion-test").images
    other = np.concatenate([load_set(name).images for name, entry in SETS.items() if entry.role == "ood"])
    chance = np.random.default_rng(SEED)
    chance.shuffle(other)
    places = np.arange(count)
    pixels = np.where((places % ONE_IN == 0)[:, None, None], other[places % len(other)], known[places % len(known)])
    return from_pixels(chance.permutation(pixels)[:, None])


if __name__ == "__main__":
    main()
