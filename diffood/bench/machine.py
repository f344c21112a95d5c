"""Describes the machine of a measurement: processor, GPU, memory, versions, load, and a process's peak memory."""

import importlib.metadata
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from diffood import __version__
from diffood.errors import DeviceError, MissingExtraError
from diffood.runtime.sessions.cores import usable_cores
from diffood.runtime.sessions.cuda import find_device

PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "torch", "diffusers", "tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class MachineInfo:
    """Where something was measured.

    Attributes:
        system: Operating system and architecture.
        processor: As the system names it.
        gpu: Its name, compute capability and driver; None where CUDA finds none.
        cores: Those this process may use.
        memory: Bytes; None where the system does not tell.
        versions: By package.
    """

    system: str
    processor: str
    gpu: str | None
    cores: int
    memory: int | None
    versions: dict[str, str]


def describe_machine() -> MachineInfo:
    """Describe this machine as the operating system and CUDA do, and versions; imports none of the engines."""
    versions = {"diffood": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return MachineInfo(
        system=f"{platform.system()} {platform.machine()}",
        processor=_field("/proc/cpuinfo", "model name") or platform.processor() or "unknown processor",
        gpu=_gpu(),
        cores=usable_cores(),
        memory=_physical_memory(),
        versions=versions,
    )


def _gpu() -> str | None:
    try:
        return str(find_device(extra="gpu"))
    except (DeviceError, MissingExtraError):
        return None


def _physical_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # Windows; a system that does not know the name
        return None


def load_average() -> float | None:
    """Processes that wanted to run, on average over the last minute; None where the system does not count them."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def peak_resident_bytes() -> int | None:
    """The most memory this process ever had resident, in bytes; None where the system does not tell.

    On Linux it is VmHWM: unlike getrusage's number, a new program does not inherit it from the one that started it,
    and psutil has none.
    """
    peak = _field("/proc/self/status", "VmHWM")
    if peak is not None:
        return 1024 * int(peak.split()[0])
    if sys.platform == "win32":
        return None
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest  # bytes there, kilobytes elsewhere


def _field(path: str, name: str) -> str | None:
    """The value of the first line `name: value` of a file of the Linux kernel."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None
