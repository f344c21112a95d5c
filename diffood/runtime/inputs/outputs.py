"""Refuses an output that lies among the inputs: the next run, or a watch, would take it for an image."""

import contextlib
import glob
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from diffood.errors import UsageError
from diffood.runtime.inputs.files import GLOB_CHARACTERS, is_folder, lies_below, path_matches
from diffood.runtime.inputs.labels import is_hidden_name

LOCAL_URLS = ("file://", "local://")
MOST_LOOKED_AT = 100_000
"""Names below an input that are looked at for links before a run; a run that meets one later does not follow it."""


def refuse_outputs_inside(inputs: Sequence[str], outputs: Mapping[str, Path | None]) -> None:
    """Check that no output is an input or would be found in one, through links too. Hidden names never are.

    Args:
        inputs: As verbs take them.
        outputs: What will be written, by the option that named it; None for nothing.

    Raises:
        UsageError: An output is among the inputs.
    """
    written = {option: output for option, output in outputs.items() if output is not None}
    for given in inputs if written else ():
        name = _without_protocol(given)
        targets = set(_reached_from(name))
        for option, output in written.items():
            # As written and with links followed: a link in an input may lead to the output, and one to the input too.
            found = any(_is_found_in(Path(form(output)), name, form) for form in (os.path.abspath, os.path.realpath))
            if found or any(lies_below(os.path.realpath(output), target) for target in targets):
                raise UsageError(
                    f"{option} {output} is among the inputs ({given}), so that it would be taken for an image; write "
                    "it elsewhere."
                )


def _without_protocol(name: str) -> str:
    return next((name.removeprefix(protocol) for protocol in LOCAL_URLS if name.startswith(protocol)), name)


def _is_found_in(path: Path, name: str, form: Callable[[str], str]) -> bool:
    file = Path(form(name.removeprefix("@")))
    if is_folder(name):
        return path == file or any(
            _is_same_folder(parent, file) and not is_hidden_name(path.relative_to(parent).as_posix())
            for parent in path.parents
        )
    if os.path.lexists(name) or not GLOB_CHARACTERS & set(name):
        return path == file  # a list, a shard or a table: rows would replace it
    return not is_hidden_name(path.name) and path_matches(path.parts, Path(form(name)).parts)


def _is_same_folder(folder: Path, other: Path) -> bool:
    """Whether two names are of one folder: the second may be mounted at the first as well."""
    try:
        return folder == other or folder.samefile(other)
    except OSError:  # one that is still to be made
        return False


def _reached_from(name: str) -> Iterator[str]:
    """Real paths of what links in the folders of an input lead to, and of folders that a pattern matches."""
    waiting, looked_at, known = [name], 0, set[str]()
    if not is_folder(name):
        matches = glob.glob(name) if GLOB_CHARACTERS & set(name) and "**" not in name else []  # noqa: PTH207
        waiting = [match for match in matches if is_folder(match)]
        yield from map(os.path.realpath, waiting)
    tops = [os.path.join(os.path.realpath(folder), "") for folder in waiting]  # noqa: PTH118 - Path's drops the end
    while waiting and looked_at < MOST_LOOKED_AT:
        folder = waiting.pop()
        if (real := os.path.realpath(folder)) in known:
            continue
        known.add(real)
        with contextlib.suppress(OSError), os.scandir(folder) as entries:  # a row will say why it cannot be listed
            for entry in itertools.islice(entries, MOST_LOOKED_AT - looked_at):
                looked_at += 1
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink():
                    target = os.path.realpath(entry.path)
                    if any(top.startswith(os.path.join(target, "")) for top in tops):  # noqa: PTH118
                        continue  # it is not followed
                    yield target
                if is_folder(entry.path):
                    waiting.append(entry.path)
