"""A stand-in for TensorRT and TensorRT-RTX that runs a plan's assembled stages through ONNX Runtime, to run sessions/tensorrt.py and
sessions/cuda.py without TensorRT: on a real GPU (real CUDA, graph capture included), or with a CUDA runtime that is
ours, on the host, whose streams do nothing before they have to (every race of a page-locked array shows).

    pytest -p standin tests/runtime/sessions/test_session_contract.py -k tensorrt    # STANDIN=host or STANDIN=gpu
"""

import ctypes
import enum
import importlib.machinery
import os
import sys
import types
from typing import Any

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before ONNX Runtime is imported
MODE = os.environ.get("STANDIN", "host")
VERSION = "10.3.0"
HOST_CAPABILITY = (8, 7)


# --- a CUDA runtime on the host, as late as it may be -----------------------------------------------------------------
class Error(enum.IntEnum):
    cudaSuccess, cudaErrorInvalidValue, cudaErrorMemoryAllocation = 0, 1, 2
    cudaErrorInsufficientDriver, cudaErrorStreamCaptureInvalidated = 35, 901


class Kind(enum.IntEnum):
    cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice = range(4)


class Capture(enum.IntEnum):
    cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed = range(3)


class HostRuntime(types.SimpleNamespace):
    """The calls of cuda.bindings.runtime that sessions/cuda.py makes."""

    cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode = Error, Kind, Capture

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.pinned: dict[int, int] = {}
        self.queue: dict[int, list] = {}
        self.capturing: dict[int, list] = {}
        self.graphs: dict[int, list] = {}
        self.count = 100

    def _new(self) -> int:
        self.count += 1
        return self.count

    def cudaGetDeviceCount(self):
        return Error.cudaSuccess, 1

    def cudaDriverGetVersion(self):
        return Error.cudaSuccess, 12060

    def cudaGetDeviceProperties(self, index):
        return Error.cudaSuccess, types.SimpleNamespace(
            name=b"host stand-in", major=HOST_CAPABILITY[0], minor=HOST_CAPABILITY[1]
        )

    def cudaGetErrorName(self, status):
        return Error.cudaSuccess, Error(status).name.encode()

    def cudaGetErrorString(self, status):
        return Error.cudaSuccess, b"of the stand-in"

    def cudaGetLastError(self):
        return (Error.cudaSuccess,)

    def cudaStreamCreate(self):
        stream = self._new()
        self.queue[stream] = []
        return Error.cudaSuccess, stream

    def cudaStreamDestroy(self, stream):
        self._run(stream)
        return (Error.cudaSuccess,)

    def _run(self, stream) -> None:
        work, self.queue[stream] = self.queue[stream], []
        for each in work:
            each()

    def _put(self, stream, work) -> None:
        (self.capturing[stream] if stream in self.capturing else self.queue[stream]).append(work)

    def cudaStreamSynchronize(self, stream):
        assert stream not in self.capturing, "a stream that is captured cannot be waited for"
        self._run(stream)
        return (Error.cudaSuccess,)

    def _allocate(self, nbytes):
        memory = (ctypes.c_ubyte * nbytes)()
        ctypes.memset(memory, 0xFF, nbytes)  # NaN
        address = ctypes.addressof(memory)
        self.memory[address] = memory
        return address

    def cudaMalloc(self, nbytes):
        assert not self.capturing, "no memory while a stream is captured"
        return Error.cudaSuccess, self._allocate(nbytes)

    def cudaMallocHost(self, nbytes):
        address = self._allocate(nbytes)
        self.pinned[address] = nbytes
        return Error.cudaSuccess, address

    def cudaFree(self, address):
        for stream in self.queue:
            self._run(stream)
        del self.memory[address]
        return (Error.cudaSuccess,)

    def cudaFreeHost(self, address):
        del self.pinned[address]
        return self.cudaFree(address)

    def _is_pinned(self, address, nbytes) -> bool:
        return any(start <= address and address + nbytes <= start + size for start, size in self.pinned.items())

    def cudaMemsetAsync(self, address, value, nbytes, stream):
        self._put(stream, lambda: ctypes.memset(address, value, nbytes))
        return (Error.cudaSuccess,)

    def cudaMemcpyAsync(self, target, source, nbytes, kind, stream):
        if kind == Kind.cudaMemcpyHostToDevice and not self._is_pinned(source, nbytes):
            staged = ctypes.string_at(source, nbytes)
            self._put(stream, lambda: ctypes.memmove(target, staged, nbytes))
        else:
            self._put(stream, lambda: ctypes.memmove(target, source, nbytes))
            if kind == Kind.cudaMemcpyDeviceToHost and not self._is_pinned(target, nbytes):
                self._run(stream)
        return (Error.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream, mode):
        self.capturing[stream] = []
        return (Error.cudaSuccess,)

    def cudaStreamEndCapture(self, stream):
        graph = self._new()
        self.graphs[graph] = self.capturing.pop(stream)
        return Error.cudaSuccess, graph

    def cudaGraphInstantiate(self, graph, flags):
        recorded = self._new()
        self.graphs[recorded] = self.graphs[graph]
        return Error.cudaSuccess, recorded

    def cudaGraphDestroy(self, graph):
        del self.graphs[graph]
        return (Error.cudaSuccess,)

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaGraphLaunch(self, recorded, stream):
        for work in self.graphs[recorded]:
            self._put(stream, work)
        return (Error.cudaSuccess,)


HOST = HostRuntime() if MODE == "host" else None
RECORDED: list[bool] = []  # for each program: whether it runs as a recorded graph


# --- modules `tensorrt` and `tensorrt_rtx` whose plan files are ONNX files --------------------------------
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
