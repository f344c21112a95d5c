"""diffood doctor: what diffood can use on this machine, and what to install for the rest."""

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from typing import Any

from diffood import __version__
from diffood.cli.options import shared as options
from diffood.cli.printing import print_result
from diffood.errors import DiffoodError, MissingExtraError
from diffood.runtime.child import bare_environment, child_command
from diffood.runtime.sessions.backends import Availability, examine_backends
from diffood.runtime.sessions.cores import usable_cores
from diffood.runtime.sessions.cuda import Device, find_device

_BASE, _EXPORT, _GPU = "pip install diffood", "pip install 'diffood[export]'", "pip install 'diffood[gpu]'"
_TENSORRT, _RTX = "pip install 'diffood[tensorrt]'", "pip install 'diffood[tensorrt-rtx]'"
# package: (what it is for, what installs it, the distributions that bring it, by the names they are installed under)
PACKAGES = {
    "onnxruntime": ("--backend onnxruntime-cpu", _BASE, ("onnxruntime", "onnxruntime-gpu")),
    "onnxruntime-gpu": ("--backend onnxruntime-cuda", _GPU, ("onnxruntime-gpu",)),
    "tensorrt": ("--engine and --backend tensorrt", _TENSORRT, ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")),
    "tensorrt-rtx": ("--engine and --backend tensorrt-rtx", _RTX, ("tensorrt-rtx", "tensorrt-rtx-cu13")),
    "cuda-bindings": ("--backend tensorrt and tensorrt-rtx", f"{_TENSORRT}, or [tensorrt-rtx]", ("cuda-bindings",)),
    "polygraphy": ("diffood export --engine", f"{_TENSORRT}, or [tensorrt-rtx]", ("polygraphy",)),
    "pyarrow": ("Parquet rows and tables of images", "pip install 'diffood[parquet]'", ("pyarrow",)),
    "cryptography": ("diffood sign and --trust", "pip install 'diffood[trust]'", ("cryptography",)),
    "matplotlib": ("pictures and reports", "pip install 'diffood[pictures]'", ("matplotlib",)),
    "jinja2": ("diffood report and --report", "pip install 'diffood[report]'", ("jinja2",)),
    "torch": ("diffood export", _EXPORT, ("torch",)),
    "diffusers": ("diffood export", _EXPORT, ("diffusers",)),
    "onnx": ("diffood export", _EXPORT, ("onnx",)),
    "onnxscript": ("diffood export", _EXPORT, ("onnxscript",)),
    "safetensors": ("diffood export", _EXPORT, ("safetensors",)),
}
_ABLE = {True: "can", False: "cannot"}
CLASH = (
    "onnxruntime and onnxruntime-gpu are both installed and share a folder, so that either may be broken: "
    "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install the one you want (onnxruntime-gpu has the CPU too)."
)


@dataclass(frozen=True)
class Finding:
    """One package diffood can use.

    Attributes:
        package: Its name at the package registry.
        version: The installed version, None where it is missing.
        purpose: What of diffood needs it.
        install: How to get it.

    """

    package: str
    version: str | None
    purpose: str
    install: str


@dataclass(frozen=True)
class Diagnosis:
    """What diffood can use on this machine.

    Attributes:
        machine: Operating system, architecture and usable cores.
        device: The GPU, or why none can be used.
        backends: Every backend, and why it can run or not.
        providers: Execution providers of ONNX Runtime; none where it cannot be imported.
        telemetry: Whether ONNX Runtime may report its use to its makers.
        sandbox: What keeps decoding processes from files, network and programs.
        packages: Every package diffood can use.
        warnings: What is installed and may be broken.

    """

    machine: str
    device: Device | str
    backends: tuple[Availability, ...]
    providers: tuple[str, ...]
    telemetry: str
    sandbox: str
    packages: tuple[Finding, ...]
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        device = asdict(self.device) if isinstance(self.device, Device) else None
        return {"diffood": __version__, **asdict(self), "device": device}


def examine_packages() -> tuple[Finding, ...]:
    """Look up every package diffood can use; imports none of them."""
    return tuple(
        Finding(name, next(filter(None, map(_version, distributions)), None), purpose, how)
        for name, (purpose, how, distributions) in PACKAGES.items()
    )


def examine_machine() -> Diagnosis:
    """Look at the libraries, cores, GPU and backends of this machine."""
    return Diagnosis(
        machine=f"{platform.system()} {platform.machine()}, {usable_cores()} cores",
        device=_device(),
        backends=tuple(examine_backends(None)),
        providers=_providers(),
        telemetry=f"off: ORT_DISABLE_TELEMETRY={os.environ['ORT_DISABLE_TELEMETRY']} is set by diffood",
        sandbox=examine_sandbox(),
        packages=examine_packages(),
        warnings=(CLASH,) if _version("onnxruntime") and _version("onnxruntime-gpu") else (),
    )


def examine_sandbox() -> str:
    """Start a process, confine it as decoding processes are, and say what holds."""
    command = child_command("diffood.runtime.sandbox")
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=bare_environment(), timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown: a process could not be started ({error})"
    held = done.stdout.strip()
    if "seccomp" in held:
        return f"decoding processes open no file and no connection: {held}"
    return f"decoding processes may open files and connections: {held or 'nothing'} is all this system has of a sandbox"


def doctor(as_json: options.AsJson = False) -> None:
    """Show what diffood can use on this machine.

    Libraries, cores, GPU and backends, and what to install for what is missing.

    Example: diffood doctor
    """
    found = examine_machine()
    print_result(found, _describe, as_json)
    if "CPUExecutionProvider" not in found.providers:
        raise MissingExtraError(
            "ONNX Runtime cannot be imported, so no bundle can run: pip install --force-reinstall onnxruntime"
        )


def _describe(found: Diagnosis) -> list[str]:
    lines = [
        ("diffood", f"{__version__}, Python {platform.python_version()}, {found.machine}"),
        ("GPU", str(found.device)),
        *(
            ("backend", f"{one.backend} {'can' if one.usable else 'cannot'} run: {one.reason}")
            for one in found.backends
        ),
        ("telemetry", found.telemetry),
        ("sandbox", found.sandbox),
        *((one.package, one.version or f"missing, for {one.purpose}: {one.install}") for one in found.packages),
        *(("warning", warning) for warning in found.warnings),
    ]
    return [f"{name:<16}{text}" for name, text in lines]


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device() -> Device | str:
    """The GPU, or why none can be used."""
    try:
        return find_device(extra="tensorrt")
    except DiffoodError as error:
        return f"none: {error}"


def _providers() -> tuple[str, ...]:
    try:
        import onnxruntime

        return tuple(onnxruntime.get_available_providers())
    except (ImportError, AttributeError):
        return ()
