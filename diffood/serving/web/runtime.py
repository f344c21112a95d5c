"""onnxruntime-web's files: finds those that the page needs in an unpacked package. Loads nothing."""

from dataclasses import dataclass
from pathlib import Path

from diffood.errors import UsageError
from diffood.runtime.json_reader import parse_object

PACKAGE = "onnxruntime-web"
TESTED = "1.30.0"
DEFAULT_FOLDER = Path("node_modules") / PACKAGE
GET = f"get it by `npm install {PACKAGE}@{TESTED}`, and give its folder with --runtime {DEFAULT_FOLDER}"

# Names in the package, and in the page: some servers do not know that .mjs is a script, and browsers run nothing else.
FILES = {
    "ort.wasm.bundle.min.mjs": "ort.wasm.bundle.min.js",
    "ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.bundle.min.mjs": "ort.webgpu.bundle.min.js",
    "ort-wasm-simd-threaded.asyncify.wasm": "ort-wasm-simd-threaded.asyncify.wasm",
}
_MAX_DESCRIPTION_BYTES = 2**20


@dataclass(frozen=True)
class WebRuntime:
    """An unpacked onnxruntime-web.

    Attributes:
        version: Its version.
        files: The files to copy, by their names in the page.
    """

    version: str
    files: dict[str, Path]


def find_runtime(folder: Path) -> WebRuntime:
    """Look a package up in the folder that npm unpacked. Raises UsageError if it is not there, or lacks a file."""
    description = folder / "package.json"
    try:
        with description.open("rb") as stream:
            package = parse_object(stream.read(_MAX_DESCRIPTION_BYTES))
        name, version = package["name"], package["version"]
    except FileNotFoundError:
        raise UsageError(f"There is no {PACKAGE} in {folder}: {GET}.") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{description} does not describe a package: {GET}.") from None
    if name != PACKAGE or not isinstance(version, str):
        raise UsageError(f"{folder} holds {name!r}, not {PACKAGE}: {GET}.")
    files = {ours: folder / "dist" / theirs for theirs, ours in FILES.items()}
    for path in files.values():
        if not path.is_file():
            raise UsageError(f"{PACKAGE} {version} in {folder} has no {path.relative_to(folder)}: {GET}.")
    return WebRuntime(version, files)
