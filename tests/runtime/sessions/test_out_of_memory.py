"""Lack of memory is recognised in the words of every library and in nothing else, also while an engine is loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

from diffood.errors import BundleError, DeviceError, EngineMemoryError
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.halving import open_halving
from diffood.runtime.sessions.out_of_memory import explain_lack_of_memory

# As the libraries wrote them, from public reports; shortened in the middle.
LACK_OF_MEMORY = {
    "ONNX Runtime's arena": (
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. "
        "Name:'Conv_111' Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* "
        "onnxruntime::BFCArena::AllocateRawInternal(...) Failed to allocate memory for requested buffer of size 9"
    ),
    "ONNX Runtime's arena with a limit": (
        "[ONNXRuntimeError] : 1 : FAIL : Available memory of 1024 is smaller than requested bytes of 4096"
    ),
    "CUDA in ONNX Runtime": (
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=egg ; file=cuda_allocator.cc ; line=48 ; expr=cudaMalloc"
    ),
    "cuBLAS while a session is made": (
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: CUBLAS failure 3: "
        "CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=egg ; file=cuda_execution_provider.cc ; line=164 ; "
        "expr=cublasCreate(&cublas_handle_);"
    ),
    "cuDNN 8": "CUDNN failure 2: CUDNN_STATUS_ALLOC_FAILED ; GPU=0 ; expr=cudnnCreate(&cudnn_handle_);",
    "cuDNN 9": "CUDNN failure 4004: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ; GPU=0",
    "CUDA's driver": "CUDA error CUDA_ERROR_OUT_OF_MEMORY",
    "cuda.bindings": "cudaErrorMemoryAllocation, out of memory",
    "TensorRT's allocator": "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
    "TensorRT while it loads": (
        "[engine.cpp::readEngineFromArchive::1091] Error Code 2: OutOfMemory (Requested size was 5244672 bytes.)"
    ),
    "TensorRT's context": "[executionContext.cpp::470] Error Code 2: OutOfMemory (no further information)",
    "an allocator of TensorRT's user": "autotuning: User allocator error allocating 15485030400-byte buffer",
    "C++": "std::bad_alloc",
    "numpy": "Unable to allocate 14.9 GiB for an array with shape (4000000000,) and data type float32",
}
OTHER_FAULTS = (
    "[ONNXRuntimeError] : 10 : INVALID_GRAPH : This is an invalid model. Type Error: Type 'tensor(int64)' of input",
    "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; expr=cudaStreamSynchronize",
    "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version",
    "CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED ; GPU=0",
    "Error Code 6: API Usage Error (The engine plan file is not compatible with this version of TensorRT)",
    "Error Code 4: Internal Error (Engine deserialization failed.)",
    "",
)


def test_lack_of_memory_is_one_error_in_every_librarys_words(subtests: pytest.Subtests) -> None:
    for where, message in LACK_OF_MEMORY.items():
        with subtests.test(where=where):
            wanted = pytest.raises(EngineMemoryError, match=r"use a smaller --batch.* A library says: ")
            with wanted as caught, explain_lack_of_memory("A library"):
                raise RuntimeError(message)
            assert isinstance(caught.value, DeviceError)
            assert message[-40:].rstrip(".") in str(caught.value)


def test_pythons_own_lack_of_memory_is_the_same_error() -> None:
    with pytest.raises(EngineMemoryError, match=r"close other programs\.$"), explain_lack_of_memory("Python"):
        raise MemoryError


def test_other_faults_stay_what_they_are(subtests: pytest.Subtests) -> None:
    for message in OTHER_FAULTS:
        with subtests.test(message=message), pytest.raises(RuntimeError) as caught, explain_lack_of_memory("A library"):
            raise RuntimeError(message)
        assert str(caught.value) == message


def test_an_error_that_is_explained_already_is_not_explained_again() -> None:
    with pytest.raises(BundleError, match=r"^out of memory, says a file\.$"), explain_lack_of_memory("A library"):
        raise BundleError("out of memory, says a file.")


# Opens a session in a process that may take so many bytes more than it has.
OPEN = """
import resource, sys
from pathlib import Path
from diffood.errors import EngineMemoryError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.sessions import SessionRequest, onnxruntime
from diffood.runtime.sessions.backends import open_session

bundle = open_bundle(Path(sys.argv[1]))
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, 2 * (pages * resource.getpagesize() + int(sys.argv[2]),))
try:
    open_session("onnxruntime-cpu", SessionRequest(bundle, bundle.plan(), "fp32", 4, 1))
except EngineMemoryError as error:
    print(error)
else:
    print("fits")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit is Linux's")
def test_a_graph_that_does_not_fit_into_memory_is_no_damaged_bundle(zoo_bundle: Bundle) -> None:
    for mebibytes in (0, 4, 12, 1024):
        command = [sys.executable, "-c", OPEN, str(zoo_bundle.path), str(mebibytes << 20)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("fits" if mebibytes == 1024 else "The engine ran out of memory: "), mebibytes


def test_the_largest_half_that_fits_is_opened(subtests: pytest.Subtests) -> None:
    for batch, fits, opened in [(64, 64, 64), (64, 20, 16), (7, 1, 1), (1, 1, 1)]:
        with subtests.test(batch=batch, fits=fits):

            def open_with(images: int, fits: int = fits) -> int:
                if images > fits:
                    raise EngineMemoryError(f"{images} images do not fit.")
                return images

            assert open_halving(open_with, batch) == opened


def test_where_nothing_fits_the_last_reason_is_given() -> None:
    def open_with(images: int) -> int:
        raise EngineMemoryError(f"{images} images do not fit.")

    with pytest.raises(EngineMemoryError, match=r"^1 images do not fit\.$"):
        open_halving(open_with, 8)


def test_an_engine_built_for_more_images_than_fit_says_both() -> None:
    def open_with(images: int) -> int:
        if images < 8:
            raise BundleError("The engine takes 8 to 64 images.")
        raise EngineMemoryError(f"{images} images do not fit.")

    with pytest.raises(
        EngineMemoryError, match=r"^8 images do not fit\. Fewer are not possible: The engine takes 8 to"
    ):
        open_halving(open_with, 32)
    with pytest.raises(BundleError):
        open_halving(open_with, 4)


def test_what_tensorrt_reports_of_memory_is_found_among_what_follows_from_it(subtests: pytest.Subtests) -> None:
    """Its calls return nothing and log: the cause first, then what it led to."""
    trt = pytest.importorskip("tensorrt_rtx")
    from diffood.runtime.sessions.tensorrt import _logger

    log = _logger(trt)
    for where in ("TensorRT's allocator", "TensorRT while it loads", "TensorRT's context"):
        with subtests.test(where=where):
            log.errors.clear()
            log.log(trt.ILogger.WARNING, "Requested amount of GPU memory (9 bytes) could not be allocated.")
            log.log(trt.ILogger.ERROR, LACK_OF_MEMORY[where])
            log.log(trt.ILogger.INTERNAL_ERROR, "Error Code 4: Internal Error (Engine deserialization failed.)")
            with pytest.raises(EngineMemoryError, match="tensorrt says: "):
                log.require_memory("tensorrt")
            assert log.said() == "Error Code 4: Internal Error (Engine deserialization failed.)"
    log.errors.clear()
    log.log(trt.ILogger.ERROR, OTHER_FAULTS[4])
    log.require_memory("tensorrt")
    assert log.said() == OTHER_FAULTS[4]
