"""diffood doctor: what of this machine diffood can use, and what to install for the rest."""

import importlib.metadata
import json
import os
import platform
from dataclasses import asdict, dataclass

import typer

from diffood import __version__
from diffood.cli import options
from diffood.errors import MissingExtraError

# distribution: (what it is for, what installs it)
PACKAGES = {
    "onnxruntime": ("runs bundles on the CPU", "pip install diffood"),
    "pyarrow": ("Parquet output", "pip install diffood"),
    "matplotlib": ("pictures", "pip install diffood"),
    "torch": ("diffood export", "pip install 'diffood[export]'"),
    "diffusers": ("diffood export", "pip install 'diffood[export]'"),
    "onnx": ("diffood export", "pip install 'diffood[export]'"),
    "onnxscript": ("diffood export", "pip install 'diffood[export]'"),
    "safetensors": ("diffood export", "pip install 'diffood[export]'"),
}
GPU_PROVIDERS = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")


@dataclass(frozen=True)
class Finding:
    """One package: its version or None, what it is for, how to get it."""

    package: str
    version: str | None
    purpose: str
    install: str


def examine() -> list[Finding]:
    """Look up every package diffood can use; imports none of them."""
    return [Finding(name, _version(name), purpose, how) for name, (purpose, how) in PACKAGES.items()]


def doctor(as_json: options.AsJson = False) -> None:
    """Show what of this machine diffood can use: libraries, cores, engines, and what is missing.

    Example: diffood doctor
    """
    findings = examine()
    providers = _providers()
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    clash = _version("onnxruntime") and _version("onnxruntime-gpu")
    if as_json:
        packages = [asdict(finding) for finding in findings]
        typer.echo(
            json.dumps({"diffood": __version__, "machine": machine, "providers": providers, "packages": packages})
        )
    else:
        typer.echo(f"diffood     {__version__}, Python {platform.python_version()}, {machine}")
        typer.echo(
            f"engine      ONNX Runtime's CPU provider{'' if 'CPUExecutionProvider' in providers else ': missing'}"
        )
        unused = [name for name in providers if name in GPU_PROVIDERS]
        if unused:
            typer.echo(f"            ONNX Runtime also offers {', '.join(unused)}; this version does not use it")
        for finding in findings:
            state = finding.version or f"missing, for {finding.purpose}: {finding.install}"
            typer.echo(f"{finding.package:<12}{state}")
        if clash:
            typer.echo(
                "warning     onnxruntime and onnxruntime-gpu are both installed and share a folder: uninstall both,"
            )
            typer.echo("            then install the one you want.")
    if "CPUExecutionProvider" not in providers:
        raise MissingExtraError("ONNX Runtime cannot be imported, so no bundle can run: pip install onnxruntime")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _providers() -> list[str]:
    try:
        import onnxruntime
    except ImportError:
        return []
    return list(onnxruntime.get_available_providers())
