"""What a stage's graph is made from, as one hash that needs no assembling: built engines are bound to it."""

import hashlib
import json

from diffood.runtime.assembly.recipe import Stage
from diffood.runtime.bundle.bundle import Bundle, Precision
from diffood.runtime.bundle.detectors import hash_graphs
from diffood.runtime.method.noise import NOISE_RULE
from diffood.runtime.method.plan import Plan

ASSEMBLY = 3
"""Version of this room: raised with every change after which the same parts give other graphs."""


def identify_stage(bundle: Bundle, plan: Plan, precision: Precision, stage: Stage) -> str:
    """Sha256 of everything that `build_stage` uses. Raises BundleError if the bundle lacks a graph of the plan."""
    manifest = bundle.manifest
    image = manifest.image
    levels = bundle.entry(manifest.noise_levels).sha256 if manifest.noise_levels else None
    content = {
        "assembly": ASSEMBLY,
        "noise": NOISE_RULE,
        "parts": hash_graphs(bundle, plan, precision),
        "noise_levels": levels,
        "prediction": manifest.unet.prediction if manifest.unet else None,
        "image": [image.channels, image.height, image.width],
        "row": manifest.noised_shape,
        "classes": len(manifest.class_names),
        "features": manifest.feature_count,
        "plan": plan.model_dump(mode="json"),
        "stage": stage.number,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
