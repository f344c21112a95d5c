"""Kernels that TensorRT-RTX compiled here, in the user's own cache folder, so that the next process starts sooner.

They are code. So they are never in a bundle, which may come from elsewhere, and only read from a folder and a file that
belong to this user and that nobody else may write. A cache that cannot be read or written is done without.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diffood.runtime.sessions.engines import EngineHost

MOST_FILES = 32  # the oldest go first
MOST_BYTES = 2**30


@dataclass(frozen=True)
class KernelFile:
    """Where the kernels of an engine are kept.

    Attributes:
        machine: What compiles them.
        engine_sha256: Hash of the engine.
        batch: Images of a call, for which they are made.
    """

    machine: EngineHost
    engine_sha256: str
    batch: int

    @property
    def path(self) -> Path:
        """The file, which need not exist. Raises RuntimeError for a user without a home."""
        key = (self.machine.library_version, str(self.machine.gpu), self.engine_sha256, str(self.batch))
        return kernel_folder() / f"{hashlib.sha256(':'.join(key).encode()).hexdigest()[:32]}.kernels"

    def read(self) -> bytes | None:
        """The kernels; None where there are none that only this user can have written."""
        with contextlib.suppress(OSError, RuntimeError):
            path = self.path
            if not _is_ours(os.lstat(path.parent), stat.S_ISDIR):
                return None
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            with os.fdopen(descriptor, "rb") as file:
                found = os.fstat(descriptor)
                if _is_ours(found, stat.S_ISREG) and found.st_size <= MOST_BYTES:
                    return file.read(found.st_size)
        return None

    def write(self, kernels: bytes) -> None:
        """Keep these kernels, in one move, and drop the oldest of many files."""
        with contextlib.suppress(OSError, RuntimeError):
            path = self.path
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if len(kernels) > MOST_BYTES or not _is_ours(os.lstat(path.parent), stat.S_ISDIR):
                return
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
                file.write(kernels)
            Path(file.name).replace(path)
            by_age = sorted(path.parent.glob("*.kernels"), key=lambda other: other.stat().st_mtime)
            for old in by_age[:-MOST_FILES]:
                old.unlink(missing_ok=True)


def kernel_folder() -> Path:
    """Folder diffood/kernels of XDG_CACHE_HOME, or of ~/.cache. Raises RuntimeError for a user without a home."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path("~/.cache").expanduser()) / "diffood" / "kernels"


def _is_ours(found: os.stat_result, is_kind: Callable[[int], bool]) -> bool:
    """Whether it is of this kind, belongs to this user, and nobody else may write it; Windows tells the kind alone."""
    if os.name != "posix":
        return is_kind(found.st_mode)
    return is_kind(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
