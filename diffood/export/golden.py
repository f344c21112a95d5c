"""Gives a bundle its golden values, computed by what serves it in FP32 on a CPU. Needs no torch."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from diffood.runtime.bundle.bundle import MANIFEST, Manifest, open_bundle
from diffood.runtime.bundle.files import write_record
from diffood.runtime.bundle.trust import NOTHING_ASKED
from diffood.runtime.bundle.writing import describe_file
from diffood.runtime.golden import Golden, GoldenRun, draw_images, observe_reference, pack_golden


def write_golden(path: Path, plans: Collection[str]) -> Manifest:
    """Write the golden values of a bundle's plans, in place of earlier ones, and enter the file into its manifest.

    Args:
        path: The bundle's folder; its manifest may name a file of golden values that is not there yet.
        plans: Names of plans.
    """
    bundle = open_bundle(path, NOTHING_ASKED)
    images, known = draw_images(bundle.manifest.image), bundle.manifest.plans
    runs = {name: GoldenRun(known[name], observe_reference(bundle, known[name], images)) for name in plans}
    file = path / bundle.manifest.golden
    np.savez_compressed(file, allow_pickle=False, **pack_golden(Golden(images, runs)))
    files = bundle.manifest.files | {file.name: describe_file(file)}
    manifest = bundle.manifest.model_copy(update={"files": files})
    write_record(path, MANIFEST, manifest)
    return manifest
