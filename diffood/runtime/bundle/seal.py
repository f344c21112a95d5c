"""The hashes that the files of a bundle must have: as they were signed, or as they were when it was opened."""

from dataclasses import dataclass
from pathlib import Path

from diffood.errors import BundleError


@dataclass(frozen=True)
class Seal:
    """Hashes that later reads are held to.

    Attributes:
        path: The bundle's folder.
        hashes: sha256 of each file by its path in the bundle; what this process writes is entered anew.
        since: When the hashes were taken, as the end of a sentence.
    """

    path: Path
    hashes: dict[str, str]
    since: str

    def require(self, name: str, sha256: str) -> None:
        """Raise BundleError unless a file has the hash that was sealed."""
        wanted = self.hashes.get(name)
        if wanted is None:
            raise BundleError(f"{self.path / name} was added after {self.since}; remove it, or sign the bundle again.")
        if wanted != sha256:
            raise BundleError(
                f"{self.path / name} was changed after {self.since}: its sha256 is {sha256[:12]}…, it was "
                f"{wanted[:12]}…. Do not use it; copy the bundle again, whole."
            )
