"""Named sets of images on the command line: NAME=DIR."""

from collections.abc import Container

from diffood.errors import UsageError
from diffood.runtime.records import is_control_character


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
