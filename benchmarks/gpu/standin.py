"""A stand-in for TensorRT and TensorRT-RTX that runs a plan's assembled stages through ONNX Runtime.

To run sessions/tensorrt.py and sessions/cuda.py without TensorRT: on a real GPU (real CUDA, graph capture included), or
with the CUDA runtime of standin_cuda.py, where every race of a page-locked array shows.

    pytest -p standin tests/runtime/sessions/test_session_contract.py -k tensorrt    # STANDIN=host or STANDIN=gpu
"""

import ctypes
import enum
import importlib.machinery
import os
import sys
import types

import numpy as np
from standin_cuda import HostRuntime

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before ONNX Runtime is imported
MODE = os.environ.get("STANDIN", "host")
VERSION = "10.3.0"
HOST = HostRuntime() if MODE == "host" else None
RECORDED: list[bool] = []  # for each program: whether it runs as a recorded graph


class DataType(enum.Enum):
    FLOAT, UINT8 = range(2)


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


WORDS = {"tensor(float)": (DataType.FLOAT, np.float32), "tensor(uint8)": (DataType.UINT8, np.uint8)}


class ILogger:
    ERROR, INTERNAL_ERROR = "error", "internal error"

    def __init__(self) -> None: ...


class Runtime:
    engine_host_code_allowed = False

    def __init__(self, logger) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, plan):
        return Engine(bytes(plan))


class Engine:
    def __init__(self, onnx: bytes) -> None:
        import onnxruntime

        self.onnx = onnx
        session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        self.tensors = [(node, TensorIOMode.INPUT) for node in session.get_inputs()]
        self.tensors += [(node, TensorIOMode.OUTPUT) for node in session.get_outputs()]
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index):
        return self.tensors[index][0].name

    def _find(self, name):
        return next(found for found in self.tensors if found[0].name == name)

    def get_tensor_dtype(self, name):
        return WORDS[self._find(name)[0].type][0]

    def get_tensor_shape(self, name):
        return [size if isinstance(size, int) else -1 for size in self._find(name)[0].shape]

    def get_tensor_mode(self, name):
        return self._find(name)[1]

    def create_execution_context(self, config=None):
        assert config is None or config.cache is not None
        return Context(self)

    def create_runtime_config(self):
        return Config()


class Config:
    cache = None

    def create_runtime_cache(self):
        return Cache()

    def set_runtime_cache(self, cache):
        self.cache = cache
        return True


class Cache:
    """Of nothing: no kernels are compiled."""

    def serialize(self):
        return b"no kernels"

    def deserialize(self, blob):
        assert bytes(blob) == b"no kernels"
        return True


class DynamicShapesKernelSpecializationStrategy(enum.Enum):
    EAGER = 0


class CudaGraphStrategy(enum.Enum):
    WHOLE_GRAPH_CAPTURE = 0


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.shapes, self.addresses = engine, {}, {}
        self.session = self.binding = None

    def set_input_shape(self, name, shape):
        self.shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name):
        return self._shape(self.engine._find(name)[0])

    def set_tensor_address(self, name, address):
        self.addresses[name] = int(address)
        return True

    def _shape(self, node):
        batch = next(iter(self.shapes.values()))[0]
        return [size if isinstance(size, int) else batch for size in node.shape]

    def execute_async_v3(self, stream):
        if HOST is not None:
            HOST._put(stream, self._run_on_host)
            return True
        try:
            if self.session is None:
                self._start(int(stream))
            self.session.run_with_iobinding(self.binding, self.options)
        except Exception as error:  # TensorRT returns False and logs
            print("stand-in:", " ".join(str(error).split())[:300])
            return False
        return True

    def _start(self, stream: int) -> None:
        import onnxruntime

        options = {
            "device_id": "0",
            "use_tf32": "0",
            "cudnn_conv_algo_search": "HEURISTIC",
            "user_compute_stream": str(stream),
        }
        settings = onnxruntime.SessionOptions()
        settings.enable_mem_pattern = False  # which allocates anew in the second run, the one that is recorded
        session = onnxruntime.InferenceSession(
            self.engine.onnx, settings, providers=[("CUDAExecutionProvider", options)], enable_fallback=0
        )
        self.session = session
        assert self.session.get_providers()[0] == "CUDAExecutionProvider"
        self.binding = self.session.io_binding()
        for node, mode in self.engine.tensors:
            bind = self.binding.bind_input if mode is TensorIOMode.INPUT else self.binding.bind_output
            bind(node.name, "cuda", 0, WORDS[node.type][1], self._shape(node), self.addresses[node.name])
        self.options = onnxruntime.RunOptions()
        self.options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def _run_on_host(self) -> None:
        import onnxruntime

        if self.session is None:
            self.session = onnxruntime.InferenceSession(self.engine.onnx, providers=["CPUExecutionProvider"])

        def view(node):
            kind, shape = WORDS[node.type][1], self._shape(node)
            size = int(np.prod(shape)) * np.dtype(kind).itemsize
            memory = (ctypes.c_ubyte * size).from_address(self.addresses[node.name])
            return np.frombuffer(memory, kind).reshape(shape)

        feeds = {node.name: view(node).copy() for node, mode in self.engine.tensors if mode is TensorIOMode.INPUT}
        outputs = [node for node, mode in self.engine.tensors if mode is TensorIOMode.OUTPUT]
        for node, value in zip(outputs, self.session.run([node.name for node in outputs], feeds)):
            view(node)[...] = value


def install() -> None:
    """Put the stand-in where sessions/tensorrt.py imports TensorRT, and the host's CUDA where asked for."""
    things = (DataType, TensorIOMode, ILogger, Runtime, DynamicShapesKernelSpecializationStrategy, CudaGraphStrategy)
    for name in ("tensorrt", "tensorrt_rtx"):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__version__ = VERSION
        for thing in things:
            setattr(module, thing.__name__, thing)
        sys.modules[name] = module
    from diffood.runtime.sessions import cuda

    if HOST is not None:
        cuda._load = lambda extra: HOST
    record = cuda.Cuda.record

    def noted(self, work):
        replay = record(self, work)
        RECORDED.append(replay is not None)
        return replay

    cuda.Cuda.record = noted


def add_engine(bundle, plan, precision, library="tensorrt", smallest=1, usual=8, largest=4096):
    """An engine folder whose plan files are the assembled stages of a plan, for the GPU that is here."""
    from diffood.runtime.assembly.identity import identify_stage
    from diffood.runtime.assembly.recipe import list_stages, make_recipe
    from diffood.runtime.assembly.stage import build_stage
    from diffood.runtime.bundle.engines import (
        EngineRecord,
        Profile,
        StageFile,
        engines_folder,
        save_record,
        target_name,
    )
    from diffood.runtime.bundle.writing import describe_file
    from diffood.runtime.sessions.cuda import find_device

    device = find_device(library)
    folder = engines_folder(bundle) / target_name(library, device.compute_capability, precision, "standin")
    folder.mkdir(parents=True)
    recipe, stages = make_recipe(bundle, plan, precision), []
    for stage in list_stages(plan):
        file = folder / f"stage{stage.number + 1}.plan"
        file.write_bytes(build_stage(recipe, stage))
        identity = identify_stage(bundle, plan, precision, stage)
        stages.append(StageFile(file=file.name, built_from=identity, **describe_file(file).model_dump()))
    record = EngineRecord(
        library=library,
        library_version=VERSION,
        precision=precision,
        plan_name="standin",
        plan=plan,
        compute_capability=device.compute_capability,
        gpu=device.name,
        driver="stand-in",
        profile=Profile(smallest=smallest, usual=usual, largest=largest),
        options={"standin": "yes"},
        stages=tuple(stages),
    )
    save_record(folder, record)


def pytest_configure(config) -> None:
    install()


def pytest_collection_modifyitems(session, config, items) -> None:
    import shutil
    from dataclasses import replace
    from pathlib import Path

    from diffood.runtime.bundle.bundle import open_bundle

    def with_engine(request, library, folder):
        copied = open_bundle(Path(shutil.copytree(request.bundle.path, folder)))
        add_engine(copied, request.plan, request.precision, library)
        return replace(request, bundle=copied)

    for item in items:
        if hasattr(item.module, "with_engine"):
            item.module.with_engine = with_engine


def pytest_terminal_summary(terminalreporter) -> None:
    terminalreporter.write_line(
        f"stand-in for TensorRT ({MODE}): {sum(RECORDED)} of {len(RECORDED)} programs run as a recorded CUDA graph"
    )
