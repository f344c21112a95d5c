"""What runs where: the device, the probe, the provider of every node, how lack of memory is reported, no device at all.

Run: nodes.py BUNDLE [--cpu].
"""

import collections
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from diffood.errors import DiffoodError
from diffood.runtime.assembly.recipe import list_stages, make_recipe
from diffood.runtime.assembly.stage import build_stage
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.sessions import onnxruntime_cuda
from diffood.runtime.sessions.cuda import find_device
from diffood.runtime.sessions.onnxruntime import give_weights, onnxruntime  # diffood turns its telemetry off


def probe() -> None:
    """The device as CUDA names it, and whether ONNX Runtime makes a session on it."""
    print("onnxruntime", onnxruntime.__version__, onnxruntime.__file__, onnxruntime.get_available_providers())
    for name, look in ("device", lambda: find_device("gpu")), ("probe", onnxruntime_cuda.require_cuda):
        began = time.perf_counter()
        try:
            found = look() or "passed"
        except DiffoodError as error:
            found = f"REFUSED {error}"
        print(f"{name} {found}, {time.perf_counter() - began:.1f} s")


def list_nodes(bundle: Bundle, provider: str, options: dict[str, str]) -> None:
    """For each stage of each plan: nodes by provider, and the operators that the wanted provider did not take."""
    for precision, (name, plan) in itertools.product(bundle.precisions, bundle.manifest.plans.items()):
        recipe = make_recipe(bundle, plan, precision)
        for stage in list_stages(plan):
            settings = onnxruntime.SessionOptions()
            settings.log_severity_level = 3
            settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
            give_weights(settings, recipe.outside)
            began, model = time.perf_counter(), build_stage(recipe, stage)
            session = onnxruntime.InferenceSession(model, settings, providers=[(provider, options)], enable_fallback=0)
            nodes: collections.Counter[str] = collections.Counter()
            elsewhere: collections.Counter[str] = collections.Counter()
            for part in session.get_provider_graph_assignment_info():
                for node in part.get_nodes():
                    nodes[part.ep_name] += 1
                    if part.ep_name != provider:
                        elsewhere[node.op_type] += 1
            seconds, what = time.perf_counter() - began, f"{name}, stage {stage.number + 1}, {precision}"
            print(f"{what:<28}{seconds:5.1f} s  {dict(nodes)}  elsewhere: {dict(elsewhere)}")


def run_out_of_memory(bundle: Bundle) -> None:
    """Score with 32 MB of GPU memory and print the class of what is raised."""
    shape = bundle.manifest.image
    for batch in (256, 4096):
        onnxruntime_cuda.OPTIONS["gpu_mem_limit"] = str(32 << 20)
        try:
            plan = bundle.plan("plain")
            detector = Detector.load(bundle, plan, backend="onnxruntime-cuda", precision="fp32", batch=batch)
            detector.score(np.zeros((batch, shape.height, shape.width), np.uint8))
            print(batch, "fits")
        except Exception as error:  # its class is the question
            kind = "a DiffoodError" if isinstance(error, DiffoodError) else "NOT ours"
            print(batch, type(error).__name__, f"({kind})", " ".join(str(error).split())[:220])
        finally:
            del onnxruntime_cuda.OPTIONS["gpu_mem_limit"]


def hide_the_device() -> None:
    """The doctor where the driver sees no device: it must report that and exit in good order."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "diffood", "doctor"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    print("exit code", done.returncode, (done.stderr or done.stdout).strip().splitlines()[-1][:200])


def main() -> None:
    """Print each finding."""
    bundle = open_bundle(Path(sys.argv[1]))
    probe()
    if "--cpu" in sys.argv:
        list_nodes(bundle, "CPUExecutionProvider", {})
        return
    list_nodes(bundle, onnxruntime_cuda.PROVIDER, onnxruntime_cuda.OPTIONS)
    print("--- out of memory (the provider limited to 32 MB)")
    run_out_of_memory(bundle)
    print("--- no visible device")
    hide_the_device()


if __name__ == "__main__":
    main()
