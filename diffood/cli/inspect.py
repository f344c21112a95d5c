"""diffood inspect: what a bundle holds."""

import json

import typer

from diffood.cli.options import shared as options
from diffood.cli.options.records import expand_records
from diffood.cli.options.trust import TrustOptions


@expand_records
def inspect(*, bundle: options.BundlePath, trust: TrustOptions, as_json: options.AsJson = False) -> None:
    """Show what a bundle holds and check its hashes.

    Models, graphs, engines, plans, the calibration and earlier ones, and what `diffood verify` concluded.

    Example: diffood inspect bundle
    """
    from diffood.calibration.inspection import inspect_bundle
    from diffood.cli.text.bundle import describe_bundle

    found = inspect_bundle(bundle)
    typer.echo(json.dumps(found.as_json()) if as_json else "\n".join(describe_bundle(found)))
