"""The few calls of the CUDA runtime that a TensorRT session makes, each checked.

Written without a GPU: tested are the refusals, and a test finds every name used here in the installed cuda.bindings.
"""

import ctypes
import importlib
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.errors import DeviceError, MissingExtraError
from diffood.runtime.records import one_line
from diffood.runtime.sessions.out_of_memory import memory_error


@dataclass(frozen=True)
class Device:
    """The GPU that sessions use: the first of CUDA_VISIBLE_DEVICES.

    Attributes:
        name: Its name.
        compute_capability: E.g. "8.6".
        driver: Newest CUDA version that the driver runs, e.g. "12.6".
    """

    name: str
    compute_capability: str
    driver: str

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.compute_capability}, driver for CUDA {self.driver})"


@dataclass(frozen=True, eq=False)
class Buffer:
    """Memory on the device, freed with this object: its address and its size in bytes."""

    address: int
    nbytes: int


def find_device(extra: str) -> Device:
    """The device that sessions use. Raises DeviceError if there is none, MissingExtraError without cuda.bindings.

    The count comes first: other calls, of CUDA and of TensorRT, may crash without a driver.
    """
    cudart = _load(extra)
    try:
        return _first_device(cudart)
    except DeviceError:
        raise
    except Exception as error:  # how versions of cuda.bindings say that there is no driver, or an older one, differs
        raise DeviceError(_no_device(one_line(error))) from None


def _first_device(cudart: Any) -> Device:
    status, count = cudart.cudaGetDeviceCount()
    if status == cudart.cudaError_t.cudaErrorInsufficientDriver:
        versions = cudart.cudaDriverGetVersion()[1], cudart.cudaRuntimeGetVersion()[1]
        raise DeviceError(_no_device(explain_old_driver(*versions) or _explain(cudart, status)))
    if status != cudart.cudaError_t.cudaSuccess:
        raise DeviceError(_no_device(_explain(cudart, status)))
    if not count:
        raise DeviceError(_no_device("the driver finds none"))
    properties = _checked(cudart, cudart.cudaGetDeviceProperties(0))
    driver = _checked(cudart, cudart.cudaDriverGetVersion())
    return Device(
        name=properties.name.decode(errors="replace").rstrip("\0"),
        compute_capability=f"{properties.major}.{properties.minor}",
        driver=_version(driver),
    )


def explain_old_driver(driver: int, runtime: int) -> str:
    """What CUDA means by an insufficient driver, from its two version numbers, e.g. 12060; "" where there is none."""
    if not driver:
        return ""
    older = f": 'cuda-bindings<{runtime // 1000}' suits it" if runtime // 1000 > driver // 1000 else ""
    return f"the driver runs CUDA {_version(driver)} at most, cuda-bindings is for {_version(runtime)}{older}"


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


class Cuda:
    """One stream on the device and the calls on it, in order. Memory it gives is freed with its Python object."""

    def __init__(self, extra: str) -> None:
        self._cudart = cudart = _load(extra)
        self._stream = self._check(cudart.cudaStreamCreate())
        weakref.finalize(self, cudart.cudaStreamDestroy, self._stream)

    @property
    def stream(self) -> int:
        """Handle of the stream, as TensorRT takes it."""
        return int(self._stream)

    def allocate(self, nbytes: int) -> Buffer:
        """Device memory, zeroed."""
        cudart = self._cudart
        buffer = Buffer(int(self._check(cudart.cudaMalloc(nbytes))), nbytes)
        weakref.finalize(buffer, cudart.cudaFree, buffer.address)
        self._check(cudart.cudaMemsetAsync(buffer.address, 0, nbytes, self._stream))
        return buffer

    def pinned(self, shape: tuple[int, ...], kind: type[np.generic]) -> npt.NDArray[Any]:
        """An array of zeros in page-locked host memory, which the GPU copies directly."""
        cudart, nbytes = self._cudart, np.dtype(kind).itemsize * math.prod(shape)
        address = int(self._check(cudart.cudaMallocHost(nbytes)))
        memory = (ctypes.c_byte * nbytes).from_address(address)
        weakref.finalize(memory, cudart.cudaFreeHost, address)  # the array and its views keep `memory`
        array = np.frombuffer(memoryview(memory), kind).reshape(shape)
        array[...] = 0
        return array

    def upload(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        """Copy a contiguous array to the device; a pinned one must keep its values until the stream has got there."""
        self._copy(buffer.address, array.ctypes.data, array.nbytes, self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def download(self, array: npt.NDArray[Any], buffer: Buffer) -> None:
        """Copy a buffer into a contiguous array, whose values are valid after `synchronize`."""
        self._copy(array.ctypes.data, buffer.address, array.nbytes, self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def _copy(self, target: int, source: int, nbytes: int, kind: Any) -> None:
        self._check(self._cudart.cudaMemcpyAsync(target, source, nbytes, kind, self._stream))

    def synchronize(self) -> None:
        """Wait until all calls on the stream are done."""
        self._check(self._cudart.cudaStreamSynchronize(self._stream))

    def record(self, work: Callable[[], None]) -> Callable[[], None] | None:
        """Capture what `work` puts on the stream as a CUDA graph; a call that repeats it, None if CUDA cannot."""
        cudart = self._cudart
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._check(cudart.cudaStreamBeginCapture(self._stream, mode))
        try:
            work()
        except DeviceError:
            complete = False
        else:
            complete = True
        status, graph = cudart.cudaStreamEndCapture(self._stream)
        if not complete or status != cudart.cudaError_t.cudaSuccess:
            cudart.cudaGetLastError()  # otherwise the next call would report it
            return None
        replay = _Replay(self, self._check(cudart.cudaGraphInstantiate(graph, 0)))
        self._check(cudart.cudaGraphDestroy(graph))
        weakref.finalize(replay, cudart.cudaGraphExecDestroy, replay.recorded)
        return replay

    def launch(self, recorded: Any) -> None:
        """Put an instantiated graph on the stream."""
        self._check(self._cudart.cudaGraphLaunch(recorded, self._stream))

    def _check(self, result: tuple[Any, ...]) -> Any:
        return _checked(self._cudart, result)


@dataclass(frozen=True, eq=False)
class _Replay:
    """A recorded CUDA graph as a call."""

    cuda: Cuda
    recorded: Any

    def __call__(self) -> None:
        self.cuda.launch(self.recorded)


def _load(extra: str) -> Any:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except (ImportError, OSError, RuntimeError) as error:  # the last: a driver of another major version
        raise MissingExtraError(
            f"cuda-bindings cannot be imported ({error}): pip install 'diffood[{extra}]'."
        ) from None


def _checked(cudart: Any, result: tuple[Any, ...]) -> Any:
    """What a call returned. Raises EngineMemoryError, and DeviceError for any other status than success."""
    status, *values = result
    if status == cudart.cudaError_t.cudaErrorMemoryAllocation:
        raise memory_error("CUDA", _explain(cudart, status))
    if status != cudart.cudaError_t.cudaSuccess:
        raise DeviceError(
            f"CUDA failed: {_explain(cudart, status)}; run `diffood doctor`, or choose another --backend."
        )
    return values[0] if values else None


def _explain(cudart: Any, status: Any) -> str:
    """CUDA's name of an error and its sentence."""
    name, sentence = cudart.cudaGetErrorName(status)[1], cudart.cudaGetErrorString(status)[1]
    return f"{name.decode()}, {sentence.decode()}"


def _no_device(reason: str) -> str:
    return f"CUDA finds no GPU here ({reason}): install NVIDIA's driver or a newer one; a container needs `--gpus all`."
