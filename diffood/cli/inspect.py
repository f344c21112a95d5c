"""diffood inspect: what a bundle holds."""

import json

import typer

from diffood.cli.options import shared as options
from diffood.cli.text.bundle import describe_bundle
from diffood.errors import CalibrationError
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.calibration import Calibration, list_kept, load_calibrated_fusion, load_calibration


def inspect(bundle: options.BundlePath, as_json: options.AsJson = False) -> None:
    """Show what a bundle holds and check its hashes.

    Models, graphs, plans, the calibration and earlier ones.

    Example: diffood inspect bundle
    """
    opened = open_bundle(bundle)
    calibration, kept = _calibration(opened), list_kept(opened)
    load_calibrated_fusion(opened, calibration)  # its bank has a hash too
    if as_json:
        content = {
            "manifest": opened.manifest.model_dump(mode="json"),
            "calibration": calibration and calibration.summary(),
            "kept_calibrations": {
                name: old.summary() | {"fingerprint_short": old.fingerprint.short} for name, old in kept.items()
            },
        }
        typer.echo(json.dumps(content))
        return
    typer.echo("\n".join(describe_bundle(opened, calibration, kept)))


def _calibration(bundle: Bundle) -> Calibration | None:
    try:
        return load_calibration(bundle)
    except CalibrationError:  # there is none; a damaged one is another error
        return None
