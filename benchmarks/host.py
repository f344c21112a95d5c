"""What the host does itself: python benchmarks/host.py. Times everything but the engine, which costs nothing here.

The engine of these runs gives what a real one gave once, at once. So what is left is the host's part of every image:
the checks, the stages, the fusion and the scores through Detector.stream; with the files of serve-batch also reading,
decoding, judging and writing rows. On a fast GPU that is what bounds the speed.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from pages import copy_zoo, diffood, machine_line, machine_options, readable, record, table
from serving import link

from diffood.bench.machine import load_average
from diffood.runtime.assembly.recipe import list_stages
from diffood.runtime.assembly.stage import FEATURES, IMAGE, LOGITS
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import load_calibrated_fusion, load_calibration
from diffood.runtime.detector import BATCHES_PER_TURN, Detector
from diffood.runtime.sessions import Session, SessionRequest, StageTensors
from diffood.runtime.sessions import onnxruntime as cpu
from diffood.runtime.stop import Stop
from diffood.serving.request import InputRequest, OutputRequest, ScorerRequest, ServeRequest
from diffood.serving.serve import serve
from diffood.zoo.images import load_set, unpack_set

PLANS = "default", "fast", "plain"
PASS, MOST_MICROSECONDS, LEAST_RATE = 4096, 25, 4000  # images of a round; the targets
ONE_IN = 10  # one image in so many is of another set


class FreeSession:
    """A session that gives again, at once, what a real one gave for the first images of a turn."""

    def __init__(self, session: Session, request: SessionRequest) -> None:
        self.backend, self.precision = session.backend, session.precision
        self.engine_sha256, self.batch, self.threads = session.engine_sha256, session.batch, session.threads
        feeds: dict[str, Any] = {IMAGE: draw(BATCHES_PER_TURN * session.batch)}
        self._found = []
        for stage in list_stages(request.plan):
            found = session.run(stage.number, feeds)
            feeds |= {name: found[name] for name in (LOGITS, FEATURES) if name in found}
            self._found.append(found)

    def run(self, stage: int, feeds: StageTensors) -> StageTensors:
        """See Session.run; the values are those of other images."""
        count = len(feeds[IMAGE])
        return {name: value[:count] for name, value in self._found[stage].items()}


def draw(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Images uint8 [count, 1, 28, 28]: the embedded clothes, one in ten of them a digit."""
    clothes, digits = (load_set(name).images for name in ("fashion-test", "digits"))
    places = np.arange(count)
    pixels = clothes[places % len(clothes)]
    pixels[::ONE_IN] = digits[places[::ONE_IN] % len(digits)]
    return pixels[:, None]


def open_free(backend: str, request: SessionRequest) -> Session:
    """The CPU session's opener, in its place."""
    return FreeSession(cpu.OnnxRuntimeSession(request), request)


def main() -> None:
    """Parse the command line, measure, write."""
    parser = machine_options(__doc__, batch=64)
    parser.add_argument("--files", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    before = load_average()
    cpu.open_session = open_free  # as a backend of its own it would need a calibration of its own
    spent: dict[str, list[float]] = {}
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        bundle = copy_zoo(place / "bundle")
        unpack_set("fashion-validation", place / "validation", 500)
        unpack_set("fashion-test", place / "originals")
        folder = link(place / "originals", place / "files", given.files)
        for plan in PLANS:
            diffood("calibrate", bundle, "--images", place / "validation", "--plan", plan, "--threads", given.threads)
            spent[plan] = time_stream(bundle, given.batch, given.rounds)
            rates[plan] = serve_files(bundle, folder, place / f"{plan}.jsonl", given.batch)
            for file in (*bundle.glob("calibration*"), *bundle.glob("fusion*")):
                file.unlink()
    content = {
        "batch": given.batch, "files": given.files, "load_before": before, "load_after": load_average(),
        "microseconds_an_image": spent, "images_a_second_from_files": rates,
    }  # fmt: skip
    cells = [
        [
            plan,
            f"{statistics.median(values):.1f}",
            f"{min(values):.1f}–{max(values):.1f}",
            readable(rates[plan]),
        ]
        for plan, values in spent.items()
    ]
    lines = [
        machine_line(content),
        f"Batch {given.batch}, 28x28; {given.rounds} rounds of {PASS:,} images from memory, {given.files:,} PNG files.",
        "",
        *table(("plan", "µs of the host an image", "least to most", "images/s from PNG files to JSON rows"), cells),
        "",
        f"Targets: at most {MOST_MICROSECONDS} µs an image, at least {LEAST_RATE:,} images/s from files.",
    ]
    record("host", content, lines)


def time_stream(bundle: Path, batch: int, rounds: int) -> list[float]:
    """Microseconds of the processor for an image through Detector.stream, by round."""
    opened = open_bundle(bundle)
    calibration = load_calibration(opened)
    plan, fusion = calibration.fingerprint.plan, load_calibrated_fusion(opened, calibration)
    pixels, found = draw(PASS), []
    with Detector.load(opened, plan, batch=batch, fusion=fusion) as detector:
        for _ in range(rounds + 1):
            began = time.process_time()
            for _ in detector.stream(enumerate(pixels)):
                pass
            found.append(1e6 * (time.process_time() - began) / PASS)
    return found[1:]  # the first one warms up


def serve_files(bundle: Path, folder: Path, rows: Path, batch: int) -> float:
    """Images a second of `diffood serve-batch` on a folder."""
    request = ServeRequest(
        ScorerRequest(bundle, backend="onnxruntime-cpu", batch=batch), InputRequest((str(folder),)), OutputRequest(rows)
    )
    return serve(request, Stop()).summary.images_per_second


if __name__ == "__main__":
    main()
