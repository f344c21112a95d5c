"""What bounds a whole pass on the GPU: how long its kernels keep the card busy, and which take the time.

Run: timeline.py BUNDLE BACKEND PRECISION [BATCH]. torch's profiler sees the kernels of every library in the process.
"""

import collections
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import load_calibrated_fusion, load_calibration
from diffood.runtime.detector import Detector
from diffood.zoo.images import load_set

TOP = 12


def covered(ranges: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, end = 0.0, float("-inf")
    for first, last in sorted(ranges):
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total


def main() -> None:
    """Score with and without the profiler, and print its findings."""
    bundle, backend, precision = open_bundle(Path(sys.argv[1])), sys.argv[2], sys.argv[3]
    batch = int(sys.argv[4]) if len(sys.argv) > 4 else 64
    calibration = load_calibration(bundle)
    fusion = load_calibrated_fusion(bundle, calibration)
    detector = Detector.load(
        bundle, calibration.fingerprint.plan, backend=backend, precision=precision, batch=batch, fusion=fusion
    )
    images = load_set("fashion-test").images[: 4 * batch, None]
    detector.score_pixels(images)
    began = time.perf_counter()
    detector.score_pixels(images)
    plain = time.perf_counter() - began
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
    with profile(activities=kinds) as found:
        began = time.perf_counter()
        detector.score_pixels(images)
        seconds = time.perf_counter() - began
    events = [event for event in found.events() if event.device_type == DeviceType.CUDA]
    busy = covered((event.time_range.start, event.time_range.end) for event in events) / 1e6
    print(f"{precision} on {backend}, batch {batch}: {1e3 * plain:.1f} ms, {1e3 * seconds:.1f} ms with the profiler")
    print(
        f"{len(events)} kernels and copies, the card is busy for {1e3 * busy:.1f} ms: {busy / plain:.0%} of the first"
    )
    spent: collections.Counter[str] = collections.Counter()
    for event in events:
        spent[event.name[:100]] += event.time_range.elapsed_us()
    for name, microseconds in spent.most_common(TOP):
        print(f"{microseconds / 1e3:9.2f} ms  {name}")


if __name__ == "__main__":
    main()
