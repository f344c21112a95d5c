"""The command line: one thin file per verb. Errors become one line and an exit code."""

import logging
import sys
from typing import Annotated, Any

import typer

from diffood import __version__
from diffood.cli.bench import bench
from diffood.cli.calibrate import calibrate
from diffood.cli.demo import demo
from diffood.cli.doctor import doctor
from diffood.cli.evaluate import evaluate
from diffood.cli.export import export
from diffood.cli.export_triton import export_triton
from diffood.cli.export_web import export_web
from diffood.cli.feedback import feedback
from diffood.cli.help import GroupedOptions, GroupedVerbs
from diffood.cli.inspect import inspect
from diffood.cli.monitor import monitor
from diffood.cli.printing import LogPrinter, print_lines, print_messages, print_what_python_says
from diffood.cli.report import report
from diffood.cli.serve_batch import serve_batch
from diffood.cli.sign import sign
from diffood.cli.streams import outlast_readers
from diffood.cli.train_unet import train_unet
from diffood.cli.tune import tune
from diffood.cli.verify import verify
from diffood.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_WRONG_USAGE, DiffoodError, UsageError
from diffood.runtime.budget import own_process
from diffood.runtime.records import OWN_PROBLEM
from diffood.runtime.stop import ending_at_second_signal

ParseError: Any = typer.BadParameter.__base__
"""What typer raises for wrong usage: click's error, or that of the parser some versions bring along."""

app = typer.Typer(
    name="diffood",
    cls=GroupedVerbs,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 100},
)


SAY_LEFT_OUT = LogPrinter()
"""Prints what listing inputs tells: a caller in Python reads it in the log."""


def _show_version(wanted: bool) -> None:
    if wanted:
        print_lines(f"diffood {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Calibrated out-of-distribution verdicts from a diffusion model and a classifier.

    Every verb explains itself and shows an example: diffood VERB --help
    """
    if context.invoked_subcommand is None:
        print_messages(*context.get_help().splitlines())
        raise typer.Exit(EXIT_WRONG_USAGE)


for verb in (export, tune, calibrate, evaluate, report, verify, bench, monitor, feedback, inspect, sign, doctor, demo):
    app.command(cls=GroupedOptions)(verb)
app.command("serve-batch", cls=GroupedOptions)(serve_batch)
app.command("train-unet", cls=GroupedOptions)(train_unet)
app.command("export-triton", cls=GroupedOptions)(export_triton)
app.command("export-web", cls=GroupedOptions)(export_web)


def main() -> None:
    """Run the command line and exit; a mistake of the user's prints one line and no traceback."""
    outlast_readers()
    print_what_python_says()
    inputs_log = logging.getLogger("diffood.runtime.inputs.open")
    inputs_log.setLevel(logging.INFO)
    inputs_log.addHandler(SAY_LEFT_OUT)
    with own_process(), ending_at_second_signal() as signals:
        code = _run()
    if code == EXIT_INTERRUPTED:
        if signals.interrupted:  # else the verb has said how it ended
            print_messages("interrupted")
        code = signals.exit_code
    sys.exit(code)


def _run() -> int:
    """The exit code of the command; what went wrong is printed."""
    try:
        code: int = app(prog_name="diffood", standalone_mode=False)
        print_lines()  # flushes what is left, here, where a full disk is explained
    except (KeyboardInterrupt, typer.Abort):  # by the version of typer
        return EXIT_INTERRUPTED
    except ParseError as error:
        message = " ".join(error.format_message().replace(OWN_PROBLEM, "").split())  # a list of choices spans lines
        stop = "" if message.endswith((".", "?")) else "."
        verb = error.ctx.command_path if error.ctx else "diffood"
        return _fail(f"{message}{stop} See `{verb} --help`.", EXIT_WRONG_USAGE)
    except DiffoodError as error:
        return _fail(str(error), EXIT_WRONG_USAGE if isinstance(error, UsageError) else EXIT_FAILED)
    except OSError as error:  # a full disk, a folder without permission
        return _fail(f"{error}; free some space, or choose a place you may write to.", EXIT_FAILED)
    except MemoryError:
        return _fail("Out of memory: close other programs, or give fewer or smaller files.", EXIT_FAILED)
    return code


def _fail(message: str, code: int) -> int:
    print_messages(f"error: {message}")
    return code
