"""Calls of the stage of a plan: our session and the same work in torch, same weights, same device, by images of a call.

The plan has one stage and the paper's score alone, such as "plain": images are classified, noised, denoised with
guidance and classified again. The error in the last column is that of the scores, relative to torch in FP32.
Run: stages.py BUNDLE [--unet DIR --scheduler DIR --classifier SPEC] [--images 8,64,512] [--compile 64] [--variants]
[--device cpu] --json FILE.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.bench.torch_loop import OfficialLoop, TorchVariant
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.model_sources import ModelSources
from diffood.runtime.assembly.stage import IMAGE
from diffood.runtime.backends import Backend
from diffood.runtime.bundle.bundle import Bundle, Precision, open_bundle
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.noise import make_pool
from diffood.runtime.sessions import SessionRequest, onnxruntime_cuda
from diffood.runtime.sessions.backends import open_session
from diffood.zoo.models import embedded_models

BURSTS, WARM_UPS = 5, 3
MODES = ("max-autotune", "reduce-overhead")  # of torch.compile
JUMP = "jump"  # the witness that is the paper's score, an output of the stage

Array = npt.NDArray[np.floating]
Opened = tuple[Array, Callable[[], Any], Callable[[], Any]]  # scores [N]; one call; a wait for the device


@dataclass(frozen=True)
class Timing:
    """Images per second of one contender: median, lowest, highest of the bursts; error relative to torch in FP32."""

    name: str
    images: int
    images_a_second: float
    low: float
    high: float
    error: float | None

    def __str__(self) -> str:
        milliseconds = 1e3 * self.images / self.images_a_second
        error = "" if self.error is None else f"  error {self.error:.1e}"
        return (
            f"{self.images:5d}  {self.name:<44}{self.images_a_second:10.0f} images/s {milliseconds:9.2f} ms a call  "
            f"({self.low:.0f}..{self.high:.0f}){error}"
        )


class CallSize:
    """One size of call: its images and their noise, and the scores of torch in FP32; the timings of all sizes."""

    def __init__(self, given: argparse.Namespace, bundle: Bundle, images: int, timings: list[Timing]) -> None:
        self.given, self.bundle, self.images, self.timings = given, bundle, images, timings
        self.plan, image, latents = bundle.plan(given.plan), bundle.manifest.image, bundle.manifest.noised_shape
        shape = (images, image.channels, image.height, image.width)
        self.pixels = np.random.default_rng(images).integers(0, 256, shape, np.uint8)
        pool = make_pool(self.plan.seed, self.plan.repeats, math.prod(shape[1:]), math.prod(latents))
        self.noise = pool.draw(self.pixels, latents)
        self.exact: Array | None = None

    def run(self, name: str, contender: Callable[[], Opened]) -> None:
        """Open a contender and time it; one that fails says so in a line."""
        try:
            scores, call, wait = contender()
        except Exception as error:  # of any library; the other contenders go on
            reason = " ".join(str(error).split())[:150]
            print(f"{self.images:5d}  {name:<44}{type(error).__name__}: {reason}", flush=True)
            return
        error = None
        if self.exact is not None:
            error = float(np.abs(scores - self.exact).max() / np.abs(self.exact).max())
        rates = self._rates(call, wait)
        self.timings.append(Timing(name, self.images, statistics.median(rates), min(rates), max(rates), error))
        print(self.timings[-1], flush=True)
        content = {"bundle": self.bundle.path.name, "plan": self.given.plan}
        self.given.json.write_text(
            json.dumps({**content, "timings": [asdict(each) for each in self.timings]}, indent=1)
        )

    def _rates(self, call: Callable[[], Any], wait: Callable[[], Any]) -> list[float]:
        for _ in range(WARM_UPS):
            call()
        wait()
        began = time.perf_counter()
        for _ in range(WARM_UPS):
            call()
        wait()
        each = max(1e-6, (time.perf_counter() - began) / WARM_UPS)
        count = max(1, int(self.given.seconds / BURSTS / each))
        rates = []
        for _ in range(BURSTS):
            began = time.perf_counter()
            for _ in range(count):
                call()
            wait()
            rates.append(self.images * count / (time.perf_counter() - began))
        return rates


def add_session(
    size: CallSize,
    precision: Precision,
    label: str = "",
    options: dict[str, str] | None = None,
    rewrite: Callable[[bytes], bytes] | None = None,
) -> None:
    """Our session, from pixels in memory to witnesses in memory; with other options or graphs where given."""
    backend: Backend = "onnxruntime-cuda" if size.given.device == "cuda" else "onnxruntime-cpu"
    changed = [table for table in (onnxruntime_cuda.HALF, onnxruntime_cuda.RECORDED) if label]
    kept = [dict(table) for table in changed]
    written = onnxruntime_cuda.as_layer_norms

    def contender() -> Opened:
        for table in changed:
            table.update(options or {})
        onnxruntime_cuda.as_layer_norms = rewrite or written
        request = SessionRequest(size.bundle, size.plan, precision, size.images, size.given.threads)
        began = time.perf_counter()
        session, feeds = open_session(backend, request), {IMAGE: size.pixels}
        recorded = getattr(session, "recorded", "")
        print(f"       opened in {time.perf_counter() - began:.1f} s, recorded: {recorded}", flush=True)
        return session.run(0, feeds)[JUMP].mean(axis=(1, 2)), lambda: session.run(0, feeds), lambda: None

    try:
        size.run(f"diffood, {precision} on {backend}{label}", contender)
    finally:
        onnxruntime_cuda.as_layer_norms = written
        for table, before in zip(changed, kept, strict=True):
            table.clear()
            table.update(before)


def add_torch(size: CallSize, name: str, *, half: bool = False, tf32: bool = False, mode: str = "") -> None:
    """The same work in torch, with the UNet eager or compiled (mode of torch.compile)."""
    import torch

    gpu = size.given.device == "cuda"

    def contender() -> Opened:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        rows = size.images * size.plan.repeats
        loop = OfficialLoop(_models(size), size.bundle, size.plan, rows, TorchVariant(half=half, gpu=gpu))
        if mode:
            loop.unet = torch.compile(loop.unet, mode=mode, dynamic=False)
        x, noise = (torch.from_numpy(value).to(loop.device) for value in (from_pixels(size.pixels), size.noise))
        began = time.perf_counter()
        scores = loop.score(x, noise)[:, 0].cpu().numpy()
        if mode:
            print(f"       compiled in {time.perf_counter() - began:.0f} s", flush=True)
        if not (half or tf32 or mode):
            size.exact = scores
        return scores, lambda: loop.score(x, noise), torch.cuda.synchronize if gpu else lambda: None

    with torch.inference_mode():
        size.run(name, contender)
    if gpu:
        torch.cuda.empty_cache()


def _models(size: CallSize) -> ModelSources:
    """The torch models of the bundle: those given, or the embedded ones."""
    given = size.given
    found = embedded_models(size.bundle.manifest)
    if given.unet:
        found = ModelSources(given.unet, ClassifierSource(given.classifier), scheduler=given.scheduler)
    assert found is not None, "give --unet and --classifier: the bundle is not the embedded one"
    return found


def measure(size: CallSize) -> None:
    """Every contender at one size, one after the other."""
    cuda = size.given.device == "cuda"
    add_torch(size, "torch eager, fp32")
    if cuda:
        add_torch(size, "torch eager, tf32", tf32=True)
        add_torch(size, "torch eager, fp16 channels_last", half=True)
    for precision in size.bundle.precisions:
        if precision == "fp32" or (cuda and precision == "fp16"):
            add_session(size, precision)
    if size.given.variants and cuda:
        add_session(size, "fp16", ", channels first", {"prefer_nhwc": "0"})
        add_session(size, "fp16", ", group norms as they are", rewrite=lambda model: model)
        add_session(size, "fp16", ", not recorded", {"enable_cuda_graph": "0"})
        add_session(size, "fp32", ", not recorded", {"enable_cuda_graph": "0"})
    if str(size.images) in size.given.compile.split(","):
        for mode in MODES:
            if cuda:
                add_torch(size, f"torch.compile {mode}, fp16", half=True, mode=mode)
            add_torch(size, f"torch.compile {mode}, fp32", mode=mode)


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--unet", type=Path, help="as for diffood export; the embedded models without")
    parser.add_argument("--scheduler", type=Path)
    parser.add_argument("--classifier")
    parser.add_argument("--plan", default="plain")
    parser.add_argument("--images", default="8,64,512")
    parser.add_argument("--compile", default="", help="images at which torch.compile is measured too")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each contender")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--variants", action="store_true", help="also our session with other options of the provider")
    given = parser.parse_args()
    bundle = open_bundle(given.bundle)
    timings: list[Timing] = []
    for count in map(int, given.images.split(",")):
        measure(CallSize(given, bundle, count, timings))


if __name__ == "__main__":
    main()
