"""Opens the output of a run: one file or a folder of parts."""

from diffood.serving.output.base import Output, OutputMode
from diffood.serving.output.journal import RunRecord
from diffood.serving.output.layout import OutputLayout
from diffood.serving.output.part_folder import PartFolder
from diffood.serving.output.single_file import SingleFile


def open_output(layout: OutputLayout, run: RunRecord, mode: OutputMode = "new") -> Output:
    """The output of a layout, to be entered. See `Output`."""
    return PartFolder(layout, run, mode) if layout.folder else SingleFile(layout, run, mode)
