"""diffood inspect: what a bundle holds."""

from diffood.cli.options import shared as options
from diffood.cli.options.records import expand_records
from diffood.cli.options.trust import TrustOptions
from diffood.cli.printing import print_result


@expand_records
def inspect(*, bundle: options.BundlePath, trust: TrustOptions, as_json: options.AsJson = False) -> None:
    """Show what a bundle holds and check its hashes.

    Models, graphs, engines, plans, the calibration and earlier ones, and what `diffood verify` concluded.

    Example: diffood inspect bundle
    """
    from diffood.calibration.inspection import inspect_bundle
    from diffood.cli.text.bundle import describe_bundle

    found = inspect_bundle(bundle)
    print_result(found, describe_bundle, as_json)
