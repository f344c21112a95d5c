"""Writes what a bundle's manifest says: after an export, and where a plan becomes the default."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from diffood.errors import UsageError
from diffood.runtime.bundle.bundle import MANIFEST, NOT_IN_MANIFEST, Bundle, FileEntry, Manifest
from diffood.runtime.bundle.files import MAX_FILE_BYTES, read_pieces, write_record
from diffood.runtime.method.plan import Plan
from diffood.runtime.records import explain_invalid


def write_bundle(path: Path, make_manifest: Callable[[dict[str, FileEntry]], Manifest]) -> Manifest:
    """Hash every file in the folder `path` and write the manifest last.

    Raises UsageError for values that cannot be in a manifest, for example a class name with control characters.
    """
    names = sorted(file.name for file in path.iterdir() if file.is_file() and file.name not in NOT_IN_MANIFEST)
    with explain_invalid("The bundle's manifest", "correct what was given", UsageError):
        manifest = make_manifest({name: describe_file(path / name) for name in names})
    write_record(path, MANIFEST, manifest)
    return manifest


def describe_file(path: Path) -> FileEntry:
    """Hash and size of a file that was just written, read a piece at a time."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        for piece in read_pieces(file, MAX_FILE_BYTES + 1):
            digest.update(piece)
            size += len(piece)
    return FileEntry(sha256=digest.hexdigest(), size=size)


def add_default_plan(bundle: Bundle, name: str, plan: Plan) -> Bundle:
    """Write a plan into the manifest under this name, replacing an earlier one, and make it the default."""
    plans = bundle.manifest.plans | {name: plan}
    manifest = bundle.manifest.model_copy(update={"plans": plans, "default_plan": name})
    bundle.unlisted.write_record(MANIFEST, manifest)
    return replace(bundle, manifest=manifest, manifest_sha256=bundle.unlisted.hashes[MANIFEST])
