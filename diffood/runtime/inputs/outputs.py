"""Refuses an output that lies among the inputs: the next run, or a watch, would take it for an image."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from diffood.errors import UsageError
from diffood.runtime.inputs.files import GLOB_CHARACTERS, is_folder, path_matches
from diffood.runtime.inputs.labels import is_hidden_name


def refuse_outputs_inside(inputs: Sequence[str], outputs: Mapping[str, Path | None]) -> None:
    """Check that no output is an input or would be found in one. Hidden names never are.

    Args:
        inputs: As verbs take them.
        outputs: What will be written, by the option that named it; None for nothing.

    Raises:
        UsageError: An output is among the inputs.
    """
    for option, output in outputs.items():
        if output is None:
            continue
        for name in inputs:
            # As written and with links followed: a link in an input may lead to the output, and one to the input too.
            if any(_is_found_in(Path(form(output)), name, form) for form in (os.path.abspath, os.path.realpath)):
                raise UsageError(
                    f"{option} {output} is among the inputs ({name}), so that it would be taken for an image; write it "
                    "elsewhere."
                )


def _is_found_in(path: Path, name: str, form: Callable[[str], str]) -> bool:
    file = Path(form(name.removeprefix("@")))
    if is_folder(name):
        return path == file or (file in path.parents and not is_hidden_name(path.relative_to(file).as_posix()))
    if os.path.lexists(name) or not GLOB_CHARACTERS & set(name):
        return path == file  # a list, a shard or a table: rows would replace it
    return not is_hidden_name(path.name) and path_matches(path.parts, Path(form(name)).parts)
