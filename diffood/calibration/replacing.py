"""Guards the calibration of a bundle against being replaced unasked, and brings an earlier one back. Fits nothing."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffood.errors import BundleError, UsageError
from diffood.runtime.assembly.files import write_detectors
from diffood.runtime.bundle.bundle import CALIBRATION, Bundle, open_bundle
from diffood.runtime.bundle.calibration import (
    Calibration,
    current_name,
    list_kept,
    load_calibrated_fusion,
    load_calibration,
    save_calibration,
)
from diffood.runtime.printable import shell_word


@dataclass(frozen=True)
class Restored:
    """An earlier calibration that is in force again.

    Attributes:
        path: Of the calibration in the bundle.
        name: It had among the kept ones.
        calibration: Its content.
        replaced: Name under which the one that was in force is kept; None if there was none.
    """

    path: Path
    name: str
    calibration: Calibration
    replaced: str | None

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON: the calibration without its scores, and the names of both."""
        return {**self.calibration.summary(), "restored": self.name, "replaced": self.replaced}


def require_overwrite(bundle: Bundle, *, overwrite: bool) -> None:
    """Raise UsageError where the bundle is calibrated and that calibration may not be replaced."""
    path = bundle.path / CALIBRATION
    if overwrite or not os.path.lexists(path):
        return
    try:
        found = describe_kept(load_calibration(bundle))
    except BundleError as error:
        found = f"but not readable: {error}".rstrip(".")
    raise UsageError(
        f"{bundle.path} is calibrated already ({found}): add --overwrite to replace that calibration. It is kept, and "
        f"`diffood calibrate {shell_word(bundle.path)} --restore` brings it back."
    )


def restore_calibration(path: Path, name: str | None = None) -> Restored:
    """Put an earlier calibration of a bundle in force again, and keep the present one.

    Args:
        path: The bundle's folder.
        name: The beginning of its name; None where there is only one.

    Raises:
        UsageError: There is no such calibration, or several.
        BundleError: The bundle or a kept calibration is damaged.
    """
    bundle = open_bundle(path)
    kept = list_kept(bundle)
    found = [known for known in kept if known.startswith(name or "")]
    listed = "; ".join(f"{known}: {describe_kept(kept[known])}" for known in kept)
    if not kept:
        raise UsageError(f"{path} has no earlier calibration to restore; `diffood calibrate` keeps those it replaces.")
    if len(found) != 1:
        which = "Several earlier calibrations" if name is None else f"{len(found)} earlier calibrations named {name!r}"
        raise UsageError(f"{which} in {path}; choose one with --kept NAME: {listed}.")
    load_calibrated_fusion(bundle, kept[found[0]])  # its bank may be gone or changed
    replaced = current_name(bundle)
    saved = save_calibration(bundle, kept[found[0]])
    write_detectors(bundle)
    return Restored(saved, found[0], kept[found[0]], replaced)


def describe_kept(calibration: Calibration) -> str:
    """A few words that tell one calibration from another."""
    return (
        f"{calibration.method}, {calibration.n} images, alpha {calibration.alpha:g}, threshold "
        f"{calibration.threshold:.6f}, {calibration.fingerprint.precision} on {calibration.fingerprint.backend}"
    )
