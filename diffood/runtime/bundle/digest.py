"""Every file that a bundle can use, with its hash, and one digest over them all. Opens nothing else.

The digest is the SHA-256 of lines as `sha256sum` prints them, sorted by path:

    <sha256 of the file>  <path in the bundle>

Inside: the manifest and all that it lists, the calibration and earlier ones, `verify`'s judgements, the tuning, the
detector files, the engines. Outside: hidden files, which are writes in progress, signatures, and any other file that
happens to lie in the folder, such as a report, because nothing opens it.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from diffood.errors import BundleError
from diffood.runtime.bundle.files import MAX_FILE_BYTES, open_regular, plain_folder, read_pieces

PREFIX = "sha256:"
HashedFiles = dict[tuple[int, int], str]  # sha256 by device and inode
MOST_FILES = 10_000  # beside the manifest's; engines and earlier calibrations are some dozens


def hash_files(
    path: Path, known: Mapping[str, str], names: Iterable[str], folders: Mapping[str, int]
) -> dict[str, str]:
    """sha256 of each file of a bundle by its path in it, ascending.

    Args:
        path: The bundle's folder.
        known: Files whose hashes are known.
        names: Of files that may be in the folder itself.
        folders: Names of folders that may be in it, and how many levels of folders each has.

    Raises:
        BundleError: A link, a file that is not regular, or too many.
    """
    found, hashed = dict(known), HashedFiles()
    for name in names:
        if name not in known and os.path.lexists(path / name):
            found[name] = hash_file(path, name, hashed)
    for folder, levels in folders.items():
        for name in _names_in(plain_folder(path, folder), folder, levels):
            if len(found) > MOST_FILES + len(known):
                raise BundleError(f"{path / folder} has more than {MOST_FILES} files; remove those that are not used.")
            if name not in known:
                found[name] = hash_file(path, name, hashed)
    return dict(sorted(found.items()))


def hash_file(path: Path, name: str, hashed: HashedFiles, limit: int = MAX_FILE_BYTES) -> str:
    """sha256 of a file of a bundle, read a piece at a time; of several links to one file, once.

    Args:
        path: The bundle's folder.
        name: The file's path in it.
        hashed: What was hashed before; the file is added.
        limit: Largest allowed size in bytes.

    Raises:
        BundleError: A link that is symbolic, a file that is not regular, or too large.
    """
    with open_regular(path, name, limit) as file:
        status = os.fstat(file.fileno())
        same = status.st_dev, status.st_ino
        if same not in hashed:
            digest = hashlib.sha256()
            for piece in read_pieces(file, limit):
                digest.update(piece)
            hashed[same] = digest.hexdigest()
        return hashed[same]


def digest_of(hashes: Mapping[str, str]) -> str:
    """The digest of a bundle from the hashes of its files."""
    lines = "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))
    return PREFIX + hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def _names_in(folder: Path, name: str, levels: int) -> Iterator[str]:
    """Paths of the files in a folder, those in its own folders first down to some level; no hidden ones."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        found = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    for entry in found:
        if levels and (folder / entry).is_dir():
            yield from _names_in(plain_folder(folder, entry), f"{name}/{entry}", levels - 1)
        elif not (folder / entry).is_dir():
            yield f"{name}/{entry}"
