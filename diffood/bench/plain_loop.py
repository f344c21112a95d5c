"""The loop most people write around an exported UNet: ONNX Runtime for each step, guidance and update in numpy."""

import itertools
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnxruntime import InferenceSession, SessionOptions

from diffood.bench.compare import WHY_UNET, Meter
from diffood.runtime.bundle.bundle import Bundle, Role, open_bundle
from diffood.runtime.bundle.graphs import autoencoder_roles, read_graph
from diffood.runtime.images.pixels import Pixels, from_pixels
from diffood.runtime.method.noise import make_pool
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.schedule import epsilon_coefficients, noise_scale
from diffood.runtime.method.scoring import Array, jumps
from diffood.runtime.sessions.onnxruntime import give_weights
from diffood.runtime.sessions.onnxruntime_cuda import require_cuda


def open_plain_loop(path: Path, plan: Plan, threads: int, gpu: bool, rows: int) -> "PlainLoop":
    """The plain loop, for `rows` // repeats images at a time, on the CUDA provider or on the CPU."""
    return PlainLoop(open_bundle(path), plan, threads, rows, gpu=gpu)


class PlainLoop:
    """DDIM around the bundle's FP32 graphs, of which it uses the logits and the noise prediction alone."""

    def __init__(self, bundle: Bundle, plan: Plan, threads: int, rows: int, *, gpu: bool = False) -> None:
        self.bundle, self.plan, self.images = bundle, plan, max(1, rows // plan.repeats)
        self.meter, self.noised = Meter(), bundle.manifest.noised_shape
        image = bundle.manifest.image
        planes = image.channels * image.height * image.width
        self._pool = make_pool(plan.seed, plan.repeats, planes, math.prod(self.noised))
        entry = bundle.require_unet(WHY_UNET)
        self._grid, self._null, self._prediction = plan.grid(bundle.alpha_bar), entry.label_count - 1, entry.prediction
        self._classify, self._unet = (_start(bundle, role, threads, gpu) for role in ("classify", "step_plain"))
        self._unet_inputs = {node.name for node in self._unet.get_inputs()}
        self._autoencoder = {role: _start(bundle, role, threads, gpu) for role in autoencoder_roles(bundle)}

    def run(self, pixels: Pixels) -> int:
        """See Runner.run."""
        before = self.meter.evaluations
        for first in range(0, len(pixels), self.images):
            self.score(pixels[first : first + self.images])
        return self.meter.evaluations - before

    def score(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """The jump [N, T] of images uint8 [N, C, H, W]."""
        plan, count, x = self.plan, len(pixels), from_pixels(pixels)
        logits = self.classify(x)
        label = np.tile(logits.argmax(axis=1), plan.repeats)
        noise = self._pool.draw(pixels, self.noised).reshape(-1, *self.noised)
        repeated = np.tile(self.encode(x), (plan.repeats, 1, 1, 1))
        origin = np.tile(logits, (plan.repeats, 1))
        if self._grid.origin_scale()[1]:
            origin = self.decode_and_classify(_mix(self._grid.origin_scale(), repeated, noise))
        after = []
        for start in plan.start_times:
            noised = _mix(noise_scale(self._grid.level(start)), repeated, noise)
            after.append(self.decode_and_classify(self.denoise(noised, label, start)))
        found = [
            jumps(origin[image::count], np.stack(after, 1)[image::count], plan.norm, plan.compare).mean(axis=0)
            for image in range(count)
        ]
        return np.stack(found)

    def denoise(self, x: Array, label: npt.NDArray[np.int64], start: int) -> Array:
        """Denoise images or latents that are noised to `start`."""
        for t, t_next in itertools.pairwise([*range(start, 0, -self.plan.stride), 0]):
            p_x, p_m = epsilon_coefficients(self._prediction, self._grid.level(t))
            row = np.tile(np.array([p_x, p_m, 1, 0], np.float32), (len(x), 1))
            time_asked, beta = np.full(len(x), self._grid.asked(t), np.float32), np.float32(self.plan.guidance)
            epsilon = self.epsilon(x, time_asked, label, row)
            if beta:
                null = np.full_like(label, self._null)
                epsilon = (1 + beta) * epsilon - beta * self.epsilon(x, time_asked, null, row)
            level, level_next = self._grid.level(t), self._grid.level(t_next)
            clean = (x - np.float32(math.sqrt(1 - level)) * epsilon) / np.float32(math.sqrt(level))
            x = np.float32(math.sqrt(level_next)) * clean + np.float32(math.sqrt(1 - level_next)) * epsilon
        return x

    def epsilon(self, x: Array, time_asked: Array, label: npt.NDArray[np.int64], row: Array) -> Array:
        """One evaluation of the UNet per row."""
        self.meter.evaluations += len(x)
        feeds: dict[str, npt.NDArray[Any]] = {"x": x, "time": time_asked, "label": label, "coefficients": row}
        return self._ask(self._unet, "epsilon", {name: feeds[name] for name in self._unet_inputs})

    def encode(self, x: Array) -> Array:
        """What is noised: the images themselves, or their latents."""
        return self._ask(self._autoencoder["encode"], "z", {"x": x}) if self._autoencoder else x

    def decode_and_classify(self, z: Array) -> Array:
        """Logits [N, K] of denoised or noised images or latents."""
        x = self._ask(self._autoencoder["decode"], "x", {"z": z}) if self._autoencoder else z
        return self.classify(np.clip(x, -1, 1))

    def classify(self, x: Array) -> Array:
        """Logits [N, K]."""
        return self._ask(self._classify, "logits", {"x": x})

    def _ask(self, session: InferenceSession, output: str, feeds: dict[str, npt.NDArray[Any]]) -> Array:
        began = time.perf_counter()
        result: Array = session.run([output], feeds)[0]
        self.meter.seconds += time.perf_counter() - began
        return result


def _mix(scale: tuple[float, float], x: Array, noise: Array) -> Array:
    return np.asarray(np.float32(scale[0]) * x + np.float32(scale[1]) * noise)


def _start(bundle: Bundle, role: Role, threads: int, gpu: bool) -> InferenceSession:
    """Start a session as ONNX Runtime's documentation does, without our session's settings; on a GPU without TF32."""
    if gpu:
        require_cuda()
    provider = ("CUDAExecutionProvider", {"use_tf32": "0"}) if gpu else "CPUExecutionProvider"
    options = SessionOptions()
    options.intra_op_num_threads = threads
    graph = read_graph(bundle, role, "fp32")
    give_weights(options, graph.outside)
    return InferenceSession(graph.model, options, providers=[provider])
