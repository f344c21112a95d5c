"""tuning.json: which images a plan was chosen on, so that no threshold is ever fitted on them. Chooses nothing."""

import os
from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from diffood.errors import BundleError
from diffood.runtime.bundle import TUNING, Bundle, Sha256, read_regular, write_atomically
from diffood.runtime.plan import first_problem
from diffood.runtime.records import Record

MOST_IMAGES = 1_000_000
MAX_TUNING_BYTES = 80 * MOST_IMAGES  # a hash, quotes, a comma, a new line and its indent


class TuningRecord(Record):
    """images: sha256 of the bytes of every in-distribution file that `diffood tune` ever looked at, ascending."""

    format: Literal[1] = 1
    images: Annotated[tuple[Sha256, ...], Field(max_length=MOST_IMAGES)] = ()


def load_tuned(bundle: Bundle) -> frozenset[str]:
    """Hashes of the images a plan of this bundle was chosen on, none where it never was. BundleError where damaged."""
    if not os.path.lexists(bundle.path / TUNING):
        return frozenset()
    remedy = "copy the bundle again, whole, or choose the plan anew on other images"
    data = read_regular(bundle.path, TUNING, MAX_TUNING_BYTES, remedy)
    try:
        return frozenset(TuningRecord.model_validate_json(data).images)
    except ValidationError as error:
        raise BundleError(f"{bundle.path / TUNING} does not hold: {first_problem(error)}; {remedy}.") from None


def add_tuned(bundle: Bundle, hashes: Collection[str]) -> None:
    """Write the hashes into the bundle, beside those of earlier runs: whoever tuned twice saw the images of both.

    Raises BundleError as `load_tuned` does.
    """
    record = TuningRecord(images=tuple(sorted({*load_tuned(bundle), *hashes})))
    write_atomically(bundle.path / TUNING, (record.model_dump_json(indent=1) + "\n").encode())
