"""diffood doctor: what of this machine diffood can use, and what to install for the rest."""

import importlib.metadata
import json
import platform
from dataclasses import asdict, dataclass

import typer

from diffood import __version__
from diffood.cli.options import shared as options
from diffood.errors import DiffoodError, MissingExtraError
from diffood.runtime.detector import DEFAULT_BATCH
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
    "pyarrow": ("Parquet output", _BASE, ("pyarrow",)),
    "matplotlib": ("pictures", _BASE, ("matplotlib",)),
    "jinja2": ("diffood report and --report", "pip install 'diffood[report]'", ("jinja2",)),
    "torch": ("diffood export", _EXPORT, ("torch",)),
    "diffusers": ("diffood export", _EXPORT, ("diffusers",)),
    "onnx": ("diffood export", _EXPORT, ("onnx",)),
    "onnxscript": ("diffood export", _EXPORT, ("onnxscript",)),
    "safetensors": ("diffood export", _EXPORT, ("safetensors",)),
}
CLASH = (
    "onnxruntime and onnxruntime-gpu are both installed and share a folder, so that either may be broken: "
    "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install the one you want (onnxruntime-gpu has the CPU too)."
)


@dataclass(frozen=True)
class Finding:
    """One package: its version or None, what it is for, how to get it."""

    package: str
    version: str | None
    purpose: str
    install: str


def examine() -> list[Finding]:
    """Look up every package diffood can use; imports none of them."""
    return [
        Finding(name, next(filter(None, map(_version, distributions)), None), purpose, how)
        for name, (purpose, how, distributions) in PACKAGES.items()
    ]


def doctor(as_json: options.AsJson = False) -> None:
    """Show what of this machine diffood can use: libraries, cores, GPU, backends, and what is missing.

    Example: diffood doctor
    """
    findings = examine()
    providers = _providers()
    machine = f"{platform.system()} {platform.machine()}, {usable_cores()} cores"
    device = _device()
    backends = examine_backends(None, "fp32", DEFAULT_BATCH)
    warnings = [CLASH] if _version("onnxruntime") and _version("onnxruntime-gpu") else []
    if as_json:
        content = {
            "diffood": __version__,
            "machine": machine,
            "device": asdict(device) if isinstance(device, Device) else None,
            "backends": [asdict(found) for found in backends],
            "providers": providers,
            "packages": [asdict(finding) for finding in findings],
            "warnings": warnings,
        }
        typer.echo(json.dumps(content))
    else:
        lines = [("diffood", f"{__version__}, Python {platform.python_version()}, {machine}"), ("GPU", str(device))]
        lines += [("backend", f"{found.backend} {_word(found)}: {found.reason}") for found in backends]
        lines += [(finding.package, _state(finding)) for finding in findings]
        lines += [("warning", warning) for warning in warnings]
        for name, state in lines:
            typer.echo(f"{name:<16}{state}")
    if "CPUExecutionProvider" not in providers:
        raise MissingExtraError(
            "ONNX Runtime cannot be imported, so no bundle can run: pip install --force-reinstall onnxruntime"
        )


def _word(found: Availability) -> str:
    return "can run" if found.usable else "cannot run"


def _state(finding: Finding) -> str:
    return finding.version or f"missing, for {finding.purpose}: {finding.install}"


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


def _providers() -> list[str]:
    try:
        import onnxruntime

        return list(onnxruntime.get_available_providers())
    except (ImportError, AttributeError):
        return []
