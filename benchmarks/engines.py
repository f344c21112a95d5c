"""TensorRT-RTX engines of a plan's stages, built without a GPU: python benchmarks/engines.py BUNDLE NAME.

For each precision and GPU: how long each stage's engine takes to build, its size, and what the builder says that it
will run: kernels by kind and by the type of what they compute, from its own report. It fuses most of a graph's nodes.
No engine is run. NAME is the section of README.md, and the file in results/.
"""

import argparse
import os
import re
import resource
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pages import machine_line, record, table

from diffood.errors import DiffoodError
from diffood.export.engines.build import build_engines
from diffood.export.request import EngineBuildRequest
from diffood.runtime.assembly.recipe import list_stages, make_recipe
from diffood.runtime.assembly.stage import build_stage
from diffood.runtime.bundle.bundle import Bundle, Precision, open_bundle
from diffood.runtime.bundle.engines import DEFAULT_PROFILE, list_engines

GPUS = ("sm75", "sm86", "sm89", "sm120")
REPORTED = "sm89"  # whose kernels are listed
SYNCHRONISATION = {"signal", "wait"}
# A kernel's line: its kind, and of what type its outputs are.
KERNEL = re.compile(r"^Name: \S+, LayerType: (\w+), Inputs: .*?, Outputs: \[(.*?)\], TacticName")
TYPE = re.compile(r"Datatype: (\w+)")


@dataclass(frozen=True)
class BuiltStage:
    """One engine.

    Attributes:
        precision: Of the bundle's graphs.
        gpu: What it is for.
        stage: Its number, from 1.
        seconds: Of a core, for the build alone.
        size: In bytes.
    """

    precision: str
    gpu: str
    stage: int
    seconds: float
    size: int


def build(path: Path, precision: Precision, gpu: str) -> list[BuiltStage] | str:
    """Build the engines of the default plan; what the builder says where it cannot."""
    times = [core_seconds()]

    def note(line: str) -> None:
        if line.startswith("engines "):  # found what it may build for, in a process of its own
            times[0] = core_seconds()
        elif " MB, " in line:
            times.append(core_seconds())

    try:
        (folder,) = build_engines(
            path,
            EngineBuildRequest(
                "tensorrt-rtx", DEFAULT_PROFILE, (gpu,), (precision,), (open_bundle(path).manifest.default_plan,)
            ),
            note,
        )
    except DiffoodError as error:
        return str(error)
    (engine,) = (engine for engine in list_engines(open_bundle(path)) if engine.path == folder)
    return [
        BuiltStage(precision, gpu, number, times[number] - times[number - 1], stage.size)
        for number, stage in enumerate(engine.record.stages, 1)
    ]


def core_seconds() -> float:
    """What ended processes of this one have computed."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def list_kernels(bundle: Bundle, precision: Precision, gpu: str) -> list[dict[str, Any]]:
    """For each stage: nodes of its graph, kernels by kind, and by the type of their outputs."""
    import tensorrt_rtx as trt

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            self.lines.extend(msg.splitlines())

    plan, found = bundle.plan(), []
    recipe = make_recipe(bundle, plan, precision)
    for stage in list_stages(plan):
        log = Log()
        builder = trt.Builder(log)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log)
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "stage.onnx"
            file.write_bytes(build_stage(recipe, stage))
            for graph in bundle.manifest.graphs:
                if graph.data and not (Path(scratch) / graph.data).exists():
                    bundle.copy(graph.data, Path(scratch) / graph.data)
            if not parser.parse(file.read_bytes(), path=str(file)):
                sys.exit(str(parser.get_error(0)))
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.clear_flag(trt.BuilderFlag.TF32)
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, gpu.upper()), 0)
        profile = builder.create_optimization_profile()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            rest = tuple(tensor.shape)[1:]
            profile.set_shape(tensor.name, *((images, *rest) for images in DEFAULT_PROFILE.model_dump().values()))
        config.add_optimization_profile(profile)
        if builder.build_serialized_network(network, config) is None:
            sys.exit(log.lines[-1])
        kernels = [match for line in log.lines if (match := KERNEL.match(line)) and match[1] not in SYNCHRONISATION]
        found.append(
            {
                "precision": precision,
                "stage": stage.number + 1,
                "layers": sum(layer.type not in (trt.LayerType.CONSTANT, trt.LayerType.SHAPE) for layer in layers),
                "kinds": dict(Counter(kernel[1] for kernel in kernels).most_common()),
                "types": dict(
                    Counter("/".join(sorted(set(TYPE.findall(kernel[2])))) for kernel in kernels).most_common()
                ),
            }
        )
    return found


def main() -> None:
    """Parse the command line, build, list, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, help="is not changed but for engines in it")
    parser.add_argument("name", help="of the section and the file")
    parser.add_argument("--gpus", default=",".join(GPUS))
    parser.add_argument("--precision", default="", help="default: all of the bundle")
    given = parser.parse_args()
    bundle = open_bundle(given.bundle)
    precisions = given.precision.split(",") if given.precision else bundle.precisions
    before = os.getloadavg()[0]
    built, refused, kernels = [], {}, []
    for precision in precisions:
        for gpu in given.gpus.split(","):
            answer = build(given.bundle, precision, gpu)
            print(precision, gpu, answer, flush=True)
            if isinstance(answer, str):
                refused[f"{precision} {gpu}"] = answer
            else:
                built += answer
        kernels += list_kernels(bundle, precision, REPORTED)
    content = {
        "built": [asdict(stage) for stage in built], "refused": refused, "kernels": kernels,
        "load_before": before, "load_after": os.getloadavg()[0],
    }  # fmt: skip
    record(given.name, content, describe(content))


def describe(content: dict[str, Any]) -> list[str]:
    """The lines of the section."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for stage in content["built"]:
        rows.setdefault((stage["precision"], stage["gpu"]), []).append(stage)
    sizes = [
        [
            f"{precision}, {gpu}",
            *(
                " + ".join(f"{stage[key] / unit:.{digits}f}" for stage in stages)
                for key, unit, digits in (("seconds", 1, 0), ("size", 1e6, 1))
            ),
        ]
        for (precision, gpu), stages in rows.items()
    ]
    sizes += [[name.replace(" ", ", "), "refused", "–"] for name in content["refused"]]
    listed = [
        [
            f"{row['precision']}, stage {row['stage']}", str(row["layers"]), str(sum(row["kinds"].values())),
            *(", ".join(f"{count} {name}" for name, count in row[key].items() if name) for key in ("kinds", "types")),
        ]
        for row in content["kernels"]
    ]  # fmt: skip
    return [
        machine_line(content),
        "",
        *table(("", "seconds of a core, stage by stage", "MB, stage by stage"), sizes),
        *(f"\n{name}: {said}" for name, said in content["refused"].items()),
        "",
        *table((f"for {REPORTED}", "layers that the parser makes", "kernels", "by kind", "by type of output"), listed),
    ]


if __name__ == "__main__":
    main()
