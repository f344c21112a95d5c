"""The command line: one file a verb, no logic. Errors become one line and an exit code."""

import os
import sys
from typing import Annotated

import typer

from diffood import __version__
from diffood.cli.bench import bench
from diffood.cli.calibrate import calibrate
from diffood.cli.demo import demo
from diffood.cli.doctor import doctor
from diffood.cli.evaluate import evaluate
from diffood.cli.export import export
from diffood.cli.export_triton import export_triton
from diffood.cli.inspect import inspect
from diffood.cli.monitor import monitor
from diffood.cli.report import report
from diffood.cli.serve_batch import serve_batch
from diffood.cli.tune import tune
from diffood.cli.verify import verify
from diffood.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_WRONG_USAGE, DiffoodError, UsageError
from diffood.runtime.records import shown

app = typer.Typer(
    name="diffood",
    help="Calibrated out-of-distribution verdicts from a diffusion model and a classifier.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"diffood {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Calibrated out-of-distribution verdicts from a diffusion model and a classifier."""


for verb in (export, tune, calibrate, evaluate, report, verify, bench, monitor, inspect, doctor, demo):
    app.command()(verb)
app.command("serve-batch")(serve_batch)
app.command("export-triton")(export_triton)


def main() -> None:
    """Run the command line; a user's mistake prints no traceback."""
    try:
        app()
    except DiffoodError as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)  # it may quote a name of a hostile bundle
        sys.exit(EXIT_WRONG_USAGE if isinstance(error, UsageError) else EXIT_FAILED)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    except OSError as error:  # a full disk, a folder without permission
        print(f"error: {shown(str(error))}; free some space, or choose a place you may write to.", file=sys.stderr)
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
