"""Calls of the stage of a plan: our session and the same work in torch, same weights, same device, by images of a call.

The plan has one stage and the paper's score alone, such as "plain": images are classified, noised, denoised with
guidance and classified again. The error in the last column is that of the scores, relative to torch in FP32.
Run: stages.py BUNDLE [--unet DIR --scheduler DIR --classifier SPEC] [--images 8,64,512] [--compile 64] [--variants]
[--device cpu] --json FILE.
"""

import argparse
import collections
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
from diffood.runtime.sessions import SessionRequest, onnxruntime, onnxruntime_cuda
from diffood.runtime.sessions.backends import open_session
from diffood.zoo.models import embedded_models

BURSTS, WARM_UPS = 5, 3
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
    """One size of call: its images and their noise, the scores of torch in FP32, and the timings so far."""

    def __init__(self, given: argparse.Namespace, bundle: Bundle, images: int) -> None:
        self.given, self.bundle, self.images = given, bundle, images
        self.plan, image, latents = bundle.plan(given.plan), bundle.manifest.image, bundle.manifest.noised_shape
        shape = (images, image.channels, image.height, image.width)
        self.pixels = np.random.default_rng(images).integers(0, 256, shape, np.uint8)
        pool = make_pool(self.plan.seed, self.plan.repeats, math.prod(shape[1:]), math.prod(latents))
        self.noise = pool.draw(self.pixels, latents)
        self.exact: Array | None = None
        self.timings: list[Timing] = []

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
    kept, build = dict(onnxruntime_cuda.OPTIONS), onnxruntime.build_stage

    def contender() -> Opened:
        onnxruntime_cuda.OPTIONS.update(options or {})
        if rewrite:
            onnxruntime.build_stage = lambda recipe, stage: rewrite(build(recipe, stage))
        request = SessionRequest(size.bundle, size.plan, precision, size.images, size.given.threads)
        began = time.perf_counter()
        session, feeds = open_session(backend, request), {IMAGE: size.pixels}
        recorded = getattr(session, "recorded", "")
        print(f"       opened in {time.perf_counter() - began:.1f} s, recorded: {recorded}", flush=True)
        return session.run(0, feeds)[JUMP].mean(axis=(1, 2)), lambda: session.run(0, feeds), lambda: None

    try:
        size.run(f"diffood, {precision} on {backend}{label}", contender)
    finally:
        onnxruntime.build_stage = build
        onnxruntime_cuda.OPTIONS.clear()
        onnxruntime_cuda.OPTIONS.update(kept)


def fuse_norms(model: bytes) -> bytes:
    """GroupNormalization, with the SiLU after it, as the one kernel that ONNX Runtime has for it on the GPU.

    The standard operator is written out as a dozen others there. The kernel takes channels last: with `prefer_nhwc`
    most transpositions go.
    """
    import onnx
    from onnx import helper

    proto = onnx.load_from_string(model)
    readers = collections.defaultdict(list)
    for node in proto.graph.node:
        for name in node.input:
            readers[name].append(node)
    gone: set[str] = set()
    nodes = []
    for node in proto.graph.node:
        if node.output[0] in gone:
            continue
        after = sorted(readers[node.output[0]], key=lambda each: each.op_type)
        if node.op_type != "GroupNormalization" or [each.op_type for each in after] != ["Mul", "Sigmoid"]:
            nodes.append(node)  # that of an attention too, whose input has three axes
            continue
        gone |= {each.output[0] for each in after}
        nodes += _fused(node, after[0].output[0])
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    if not any(each.domain == "com.microsoft" for each in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto.SerializeToString()


def _fused(node: Any, y: str) -> list[Any]:
    import onnx
    from onnx.helper import get_attribute_value, make_node

    given = {each.name: get_attribute_value(each) for each in node.attribute}
    (x, scale, bias), key = node.input, node.output[0]
    settings = {"groups": given["num_groups"], "epsilon": given.get("epsilon", 1e-5), "activation": 1}
    inputs = [f"{key}.in", f"{key}.scale", f"{key}.bias"]
    return [
        make_node("Transpose", [x], inputs[:1], perm=[0, 2, 3, 1]),
        *(
            make_node("Cast", [name], [to], to=onnx.TensorProto.FLOAT)
            for name, to in zip((scale, bias), inputs[1:], strict=True)
        ),
        make_node("GroupNorm", inputs, [f"{key}.out"], domain="com.microsoft", channels_last=1, **settings),
        make_node("Transpose", [f"{key}.out"], [y], perm=[0, 3, 1, 2]),
    ]


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
        nhwc, call = {"prefer_nhwc": "1"}, {"enable_cuda_graph": "0"}
        add_session(size, "fp16", ", nhwc", nhwc)
        add_session(size, "fp16", ", fused norms", rewrite=fuse_norms)
        add_session(size, "fp16", ", nhwc, fused norms", nhwc, fuse_norms)
        add_session(size, "fp16", ", exhaustive", {"cudnn_conv_algo_search": "EXHAUSTIVE"})
        add_session(size, "fp16", ", not recorded", call)
        add_session(size, "fp32", ", not recorded", call)
        add_session(size, "fp32", ", tf32", {"use_tf32": "1"})
        add_session(size, "fp32", ", nhwc", nhwc)
    if str(size.images) in size.given.compile.split(","):
        for mode in ("max-autotune", "reduce-overhead"):
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
        size = CallSize(given, bundle, count)
        measure(size)
        timings += size.timings
        content = {"bundle": bundle.path.name, "plan": given.plan, "timings": [asdict(each) for each in timings]}
        given.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
