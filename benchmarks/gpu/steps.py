"""Guided denoising steps of one UNet: our session and torch, same weights, same device, by rows of a call.

A row is two evaluations. The error in the last column is relative to torch in FP32.
Run: steps.py BUNDLE UNET_FOLDER --rows 8,64,512 [--compile 64] [--variants] [--device cpu] --json FILE.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.runtime.bundle.bundle import Bundle, Precision, open_bundle
from diffood.runtime.bundle.graphs import read_graph
from diffood.runtime.method.schedule import NO_REGISTER
from diffood.runtime.sessions import StepInputs, onnxruntime_cuda
from diffood.runtime.sessions.backends import open_session
from diffood.runtime.sessions.onnxruntime import start_session

BURSTS, WARM_UPS = 5, 3
GUIDANCE = 2

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Timing:
    """Rows per second of one contender: median, lowest and highest of the bursts; error relative to torch in FP32."""

    name: str
    rows: int
    rows_a_second: float
    low: float
    high: float
    error: float | None

    def __str__(self) -> str:
        milliseconds = 1e3 * self.rows / self.rows_a_second
        error = "" if self.error is None else f"  error {self.error:.1e}"
        return (
            f"{self.rows:5d}  {self.name:<44}{self.rows_a_second:10.0f} rows/s {milliseconds:9.2f} ms a step  "
            f"({self.low:.0f}..{self.high:.0f}){error}"
        )


class CallSize:
    """One size of call: its inputs, what torch in FP32 made of them, and the timings so far."""

    def __init__(self, given: argparse.Namespace, bundle: Bundle, rows: int) -> None:
        random = np.random.default_rng(rows)
        self.given, self.bundle, self.rows = given, bundle, rows
        self.labels = bundle.manifest.unet.label_count
        self.x: Array = random.standard_normal((rows, *bundle.manifest.lane_shape), np.float32)
        self.inputs = StepInputs(
            time=random.integers(0, len(bundle.alpha_bar), rows).astype(np.float32),
            label=random.integers(0, self.labels - 1, rows),
            guidance=np.full(rows, GUIDANCE, np.float32),
            coefficients=np.tile(np.array([0, 1, 0.9, 0.1], np.float32), (rows, 1)),
            weights=np.zeros((rows, 0), np.float32),
            store=np.full(rows, NO_REGISTER, np.int64),
        )
        self.exact: Array | None = None
        self.timings: list[Timing] = []

    def run(self, name: str, contender: Callable[[], tuple[Array, Callable[[], Any], Callable[[], Any]]]) -> None:
        """Make a contender (its output, a call, a wait for the device), time it; one that fails says so in a line."""
        try:
            output, call, wait = contender()
        except Exception as error:  # of any library; the other contenders go on
            print(f"{self.rows:5d}  {name:<44}{type(error).__name__}: {' '.join(str(error).split())[:150]}", flush=True)
            return
        error = None
        if self.exact is not None:
            error = float(np.abs(output - self.exact).max() / np.abs(self.exact).max())
        rates = self._rates(call, wait)
        self.timings.append(Timing(name, self.rows, statistics.median(rates), min(rates), max(rates), error))
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
            rates.append(self.rows * count / (time.perf_counter() - began))
        return rates


def add_session(rows: CallSize, precision: Precision, options: dict[str, str] | None = None, label: str = "") -> None:
    """Our session, on the GPU with other options of the provider where given."""
    backend = "onnxruntime-cuda" if rows.given.device == "cuda" else "onnxruntime-cpu"
    kept = dict(onnxruntime_cuda.OPTIONS)

    def contender() -> tuple[Array, Callable[[], Any], Callable[[], Any]]:
        onnxruntime_cuda.OPTIONS.update(options or {})
        session = open_session(
            rows.bundle, backend, precision, guided=True, registers=0, batch=rows.rows, threads=rows.given.threads
        )
        for lane in range(rows.rows):
            session.put(lane, rows.x[lane])
        session.step(rows.inputs)
        output = np.stack([session.take(lane) for lane in range(rows.rows)])
        return output, lambda: session.step(rows.inputs), lambda: session.take(0)

    try:
        rows.run(f"diffood, {precision} on {backend}{label}", contender)
    finally:
        onnxruntime_cuda.OPTIONS.clear()
        onnxruntime_cuda.OPTIONS.update(kept)


def add_recorded(rows: CallSize, precision: Precision) -> None:
    """ONNX Runtime's own CUDA graph of the guided step with one binding: what recording would gain."""
    import onnxruntime

    def contender() -> tuple[Array, Callable[[], Any], Callable[[], Any]]:
        graph = read_graph(rows.bundle, "step_guided", precision)
        options = {**onnxruntime_cuda.OPTIONS, "enable_cuda_graph": "1"}
        session = start_session(graph.model, onnxruntime_cuda.PROVIDER, options, 0, graph.outside)
        names = [node.name for node in session.get_inputs()]
        values = {name: rows.x if name == "x" else getattr(rows.inputs, name) for name in names}
        made = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        outputs = {name: made(list(rows.x.shape), np.float32, "cuda", 0) for name in ("x_next", "epsilon")}
        binding = session.io_binding()
        for name, value in values.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", 0))
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        session.run_with_iobinding(binding)
        session.run_with_iobinding(binding)
        return outputs["x_next"].numpy(), lambda: session.run_with_iobinding(binding), lambda: None

    rows.run(f"onnxruntime recorded (enable_cuda_graph), {precision}", contender)


def add_torch(rows: CallSize, name: str, *, half: bool = False, tf32: bool = False, mode: str = "") -> None:
    """The same guided step in torch, eager or compiled (mode of torch.compile)."""
    import torch
    from diffusers import UNet2DModel

    device, kind = rows.given.device, torch.float16 if half else torch.float32

    def contender() -> tuple[Array, Callable[[], Any], Callable[[], Any]]:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        model = UNet2DModel.from_pretrained(rows.given.unet).eval().to(device, kind).requires_grad_(False)
        if half:
            model = model.to(memory_format=torch.channels_last)
        asked = rows.inputs
        arrays = (rows.x, asked.time, asked.label, asked.guidance, asked.coefficients)
        x, times, labels, guidance, coefficients = (torch.from_numpy(array).to(device) for array in arrays)
        null = torch.full_like(labels, rows.labels - 1)

        def step(x: torch.Tensor) -> torch.Tensor:
            both = torch.cat([times, times]), torch.cat([labels, null])
            out = model(torch.cat([x, x]).to(kind), both[0], class_labels=both[1], return_dict=False)[0].float()
            conditional, unconditional = out.chunk(2)
            scale = guidance[:, None, None, None]
            out = (1 + scale) * conditional - scale * unconditional
            p_x, p_m, c_x, c_e = coefficients.T[:, :, None, None, None]
            result: torch.Tensor = c_x * x + c_e * (p_x * x + p_m * out)
            return result

        run = torch.compile(step, mode=mode, dynamic=False) if mode else step
        began = time.perf_counter()
        first = run(x).float().cpu().numpy()
        if mode:
            print(f"       compiled in {time.perf_counter() - began:.0f} s", flush=True)
        if not (half or tf32 or mode):
            rows.exact = first
        return first, lambda: run(x), torch.cuda.synchronize if device == "cuda" else lambda: None

    with torch.inference_mode():
        rows.run(name, contender)
    if device == "cuda":
        torch.cuda.empty_cache()


def measure(rows: CallSize) -> None:
    """Every contender at one size, one after the other."""
    cuda = rows.given.device == "cuda"
    add_torch(rows, "torch eager, fp32")
    if cuda:
        add_torch(rows, "torch eager, tf32", tf32=True)
        add_torch(rows, "torch eager, fp16 channels_last", half=True)
    for precision in rows.bundle.precisions:
        if precision == "fp32" or (cuda and precision == "fp16"):
            add_session(rows, precision)
    if rows.given.variants and cuda:
        add_session(rows, "fp32", {"use_tf32": "1"}, ", tf32")
        add_session(rows, "fp16", {"prefer_nhwc": "1"}, ", nhwc")
        add_session(rows, "fp16", {"cudnn_conv_algo_search": "EXHAUSTIVE"}, ", exhaustive")
        add_recorded(rows, "fp32")
        add_recorded(rows, "fp16")
    if str(rows.rows) in rows.given.compile.split(","):
        for mode in ("reduce-overhead", "max-autotune"):
            add_torch(rows, f"torch.compile {mode}, fp32", mode=mode)
            if cuda:
                add_torch(rows, f"torch.compile {mode}, fp16", half=True, mode=mode)


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("unet", type=Path)
    parser.add_argument("--rows", default="8,64,512")
    parser.add_argument("--compile", default="", help="rows at which torch.compile is measured too")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each contender")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--variants", action="store_true", help="also our session with other options of the provider")
    given = parser.parse_args()
    bundle = open_bundle(given.bundle)
    timings: list[Timing] = []
    for count in map(int, given.rows.split(",")):
        rows = CallSize(given, bundle, count)
        measure(rows)
        timings += rows.timings
        given.json.write_text(
            json.dumps({"bundle": bundle.path.name, "timings": [asdict(t) for t in timings]}, indent=1)
        )


if __name__ == "__main__":
    main()
