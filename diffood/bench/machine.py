"""The machine a figure was measured on: processor, memory, versions, load; and a process's peak memory."""

import importlib.metadata
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from diffood import __version__
from diffood.runtime.sessions.cores import usable_cores

PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "torch", "diffusers", "tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class Machine:
    """Where something was measured. memory: bytes; cores: those this process may use; versions by package."""

    system: str
    processor: str
    cores: int
    memory: int | None
    versions: dict[str, str]


def describe_machine() -> Machine:
    """What the operating system tells of this machine, and versions; imports none of the packages."""
    versions = {"diffood": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        processor=_field("/proc/cpuinfo", "model name") or platform.processor() or "unknown processor",
        cores=usable_cores(),
        memory=_kilobytes("/proc/meminfo", "MemTotal"),
        versions=versions,
    )


def load_average() -> float | None:
    """Processes that wanted to run, on average over the last minute; None where the system does not count them."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def peak_resident_bytes() -> int | None:
    """The most memory this process ever had resident, in bytes; None where the system does not tell.

    On Linux the kernel's VmHWM: unlike getrusage's, a new program does not inherit it from the one that started it.
    """
    peak = _kilobytes("/proc/self/status", "VmHWM")
    if peak is not None or sys.platform == "win32":
        return peak
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest  # bytes there, kilobytes elsewhere


def _kilobytes(path: str, name: str) -> int | None:
    found = _field(path, name)
    return 1024 * int(found.split()[0]) if found else None


def _field(path: str, name: str) -> str | None:
    """The value of the first line `name: value` of a file of the kernel's."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None
