"""A CUDA runtime on the host, as late as it may be: its streams do nothing before they have to."""

import ctypes
import enum
import types
from typing import Any

HOST_CAPABILITY = (8, 7)


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
