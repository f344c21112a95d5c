"""Named sets of images on the command line: NAME=DIR read, and scored with progress."""

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING

from diffood.cli import progress
from diffood.errors import UsageError
from diffood.runtime.detector import Detector
from diffood.runtime.records import is_control_character

if TYPE_CHECKING:
    from diffood.calibration.calibrate import ScoredFiles
    from diffood.report.gallery import Extremes


def named_folders(pairs: list[str], option: str = "--ood", taken: Container[str] = ()) -> dict[str, str]:
    """Read NAME=DIR pairs; UsageError for a name that is missing, repeated, taken, `ind` or not fit for a table."""
    folders: dict[str, str] = {}
    for pair in pairs:
        name, _, folder = pair.partition("=")
        if not name or not folder or name == "ind" or name in folders or name in taken:
            raise UsageError(f"{option} {pair!r} is not NAME=DIR with a name of its own (and not 'ind').")
        if any(map(is_control_character, name)):
            raise UsageError(f"{option} {pair!r} has control characters in its name, which tables cannot show.")
        folders[name] = folder
    return folders


def score_sets(
    detector: Detector, folders: Mapping[str, str], doing: str
) -> "tuple[dict[str, ScoredFiles], dict[str, Extremes]]":
    """Score the files of each folder, by name, and keep the extremes of each; `doing` is what progress says."""
    from diffood.calibration.calibrate import score_folder
    from diffood.report.gallery import Extremes
    from diffood.runtime.inputs.open import list_inputs

    sources = {name: list_inputs([folder]) for name, folder in folders.items()}
    extremes = {name: Extremes() for name in sources}
    with progress.show_progress(doing, sum(map(len, sources.values()))) as advance:
        scored = {
            name: score_folder(detector, files, progress=advance, see=extremes[name].see)
            for name, files in sources.items()
        }
    return scored, extremes
