"""How `--help` is laid out: verbs under the headings of a first day, options under their panels."""

from collections import defaultdict
from typing import Any

from typer.core import TyperCommand, TyperGroup

HEADINGS = {
    "Start here": ("demo", "doctor"),
    "Make a bundle": ("train-unet", "export", "tune", "calibrate"),
    "Check a bundle": ("inspect", "verify", "evaluate", "report", "bench", "sign"),
    "Run a bundle": ("serve-batch", "monitor", "feedback", "export-triton", "export-web"),
}


class GroupedVerbs(TyperGroup):
    """Lists the verbs under `HEADINGS`, each with the first sentence of its help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section per heading."""
        for heading, names in HEADINGS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=100)) for name in names])


class GroupedOptions(TyperCommand):
    """Lists the options of a verb under the `rich_help_panel` they name; those without one come first."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section per panel."""
        panels: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
                panels[getattr(parameter, "rich_help_panel", None) or kind].append(record)
        for panel in sorted(panels, key=lambda name: name not in ("Arguments", "Options")):
            with formatter.section(panel):
                formatter.write_dl(panels[panel])
