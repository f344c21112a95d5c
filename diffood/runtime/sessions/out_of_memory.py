"""Turns what engine libraries raise into our errors; recognises lack of memory, for which few have a class."""

import contextlib
from collections.abc import Iterator

from diffood.errors import BundleError, DiffoodError, EngineMemoryError
from diffood.runtime.records import one_line

# Fragments in lower case, without spaces and underscores: libraries write both "out of memory" and "OutOfMemory".
FRAGMENTS = (
    "outofmemory",  # CUDA, its driver (CUDA_ERROR_OUT_OF_MEMORY), TensorRT
    "failedtoallocatememory",  # ONNX Runtime's arena
    "availablememoryof",  # ONNX Runtime's arena, with a limit
    "badalloc",  # C++
    "allocfailed",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED, CUFFT_ALLOC_FAILED
    "allocationfailed",  # CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED, CURAND_STATUS_ALLOCATION_FAILED
    "memoryallocation",  # cudaErrorMemoryAllocation
    "errorallocating",  # TensorRT: User allocator error allocating N-byte buffer
    "couldnotbeallocated",  # TensorRT: Requested amount of GPU memory (N bytes) could not be allocated
    "unabletoallocate",  # numpy
    "notenoughmemory",  # Windows
)
KEPT = 200  # last characters of a library's message, which name the operator and the size


def is_out_of_memory(message: str) -> bool:
    """Whether a library's message says that memory ran out, on the device or the host."""
    plain = message.lower().replace(" ", "").replace("_", "")
    return any(fragment in plain for fragment in FRAGMENTS)


def memory_error(library: str, message: str) -> EngineMemoryError:
    """The error to raise, with what the library said."""
    said = one_line(message)[-KEPT:].rstrip(".")
    return EngineMemoryError(
        "The engine ran out of memory: use a smaller --batch, or close other programs."
        + (f" {library} says: {said}." if said else "")
    )


@contextlib.contextmanager
def explain_lack_of_memory(library: str) -> Iterator[None]:
    """Raise a library's error about memory, and Python's own, as EngineMemoryError; others pass."""
    try:
        yield
    except DiffoodError:
        raise
    except Exception as error:
        if not isinstance(error, MemoryError) and not is_out_of_memory(str(error)):
            raise
        raise memory_error(library, str(error)) from None


@contextlib.contextmanager
def explain_failed_call(library: str) -> Iterator[None]:
    """Raise what a library raises while it runs a graph as EngineMemoryError, or else as BundleError."""
    try:
        with explain_lack_of_memory(library):
            yield
    except DiffoodError:
        raise
    except Exception as error:
        said = one_line(error)[-KEPT:].rstrip(".")
        raise BundleError(
            f"{library} failed while it ran a graph of the bundle ({said}): export the bundle again, or try another "
            "--backend."
        ) from None
