"""Puts a software bill of materials into each wheel, at diffood-*.dist-info/sboms/ (PEP 770). All else: pyproject.toml.

CycloneDX 1.6: what diffood asks for, with its limits, and the models and images that it carries, with their hashes.
Exact versions are those of an environment: `make sbom`.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

CARRIED = Path("diffood/zoo/data")
KINDS = {".onnx": "machine-learning-model", ".safetensors": "machine-learning-model", ".npz": "data"}


class WheelWithSbom(bdist_wheel):
    """A wheel whose metadata has the file."""

    def write_wheelfile(self, wheelfile_base: str, *args: Any, **options: Any) -> None:
        """Write it together with the file WHEEL, which every wheel has."""
        super().write_wheelfile(wheelfile_base, *args, **options)
        (folder := Path(wheelfile_base, "sboms")).mkdir(exist_ok=True)
        (folder / "diffood.cdx.json").write_text(json.dumps(describe(self.distribution), indent=1) + "\n")


def describe(distribution: Any) -> dict[str, Any]:
    """The bill of materials; the same for the same sources."""
    name, version = distribution.get_name(), distribution.get_version()
    asked = [(Requirement(text), "") for text in distribution.install_requires]
    asked += [(Requirement(text), extra) for extra, texts in distribution.extras_require.items() for text in texts]
    packages: dict[str, dict[str, Any]] = {}
    for requirement, extra in asked:
        key = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if key == name:
            continue  # an extra that takes others
        package = packages.setdefault(key, _package(key, required=not extra))
        package["properties"].append({"name": f"diffood:{extra or 'requires'}", "value": str(requirement)})
    files = [_file(path) for path in sorted(CARRIED.rglob("*")) if path.suffix in KINDS]
    references = [part["bom-ref"] for part in (*packages.values(), *files)]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": name,
                "name": name,
                "version": version,
                "purl": f"pkg:pypi/{name}@{version}",
                "licenses": [{"expression": distribution.metadata.license_expression}],
            }
        },
        "components": [*packages.values(), *files],
        "dependencies": [{"ref": name, "dependsOn": references}],
    }


def _package(name: str, *, required: bool) -> dict[str, Any]:
    scope = "required" if required else "optional"
    return {
        "type": "library",
        "bom-ref": name,
        "name": name,
        "scope": scope,
        "purl": f"pkg:pypi/{name}",
        "properties": [],
    }


def _file(path: Path) -> dict[str, Any]:
    hashes = [{"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}]
    return {"type": KINDS[path.suffix], "bom-ref": path.as_posix(), "name": path.as_posix(), "hashes": hashes}


setup(cmdclass={"bdist_wheel": WheelWithSbom})
