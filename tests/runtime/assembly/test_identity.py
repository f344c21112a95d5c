"""What an engine is bound to changes with everything that its stage is made from, and is known without assembling."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halved_graphs import reseal

from diffood.runtime.assembly import identity
from diffood.runtime.assembly.identity import identify_stage
from diffood.runtime.assembly.recipe import list_stages, make_recipe
from diffood.runtime.assembly.stage import build_stage
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.method.plan import CLASSIFIER, Plan

# Of the assembled stages of the small bundle. If one changes, engines of the version before are not what would be built
# now: raise ASSEMBLY, and write the new hashes here. If the bundle was made anew, only write the hashes.
PINNED_VERSION = 3
PINNED = {
    "default": ["69808f6992808531", "8ef523d94af193d8"],
    "fast": ["3cef5755270a0395"],
    "plain": ["5a3d9d7190f043d9"],
    "reference": ["fcedccc1708da562"],
}


def identities(bundle: Bundle, plan: Plan, precision: Any = "fp32") -> list[str]:
    return [identify_stage(bundle, plan, precision, stage) for stage in list_stages(plan)]


def test_a_changed_graph_has_another_assembly_version(small_bundle: Bundle) -> None:
    found: dict[str, list[str]] = {}
    for name in small_bundle.manifest.plans:
        plan = small_bundle.plan(name)
        recipe = make_recipe(small_bundle, plan, "fp32")
        models = [build_stage(recipe, stage) for stage in list_stages(plan)]
        found[name] = [hashlib.sha256(model).hexdigest()[:16] for model in models]
    assert (identity.ASSEMBLY, found) == (PINNED_VERSION, PINNED), "raise ASSEMBLY, and pin its number and these hashes"


def test_it_is_the_same_for_the_same_bundle_elsewhere(small_bundle: Bundle, small_bundle_copy: Path) -> None:
    plan = small_bundle.plan()
    found = identities(small_bundle, plan)
    assert found == identities(open_bundle(small_bundle_copy), plan)
    assert len(set(found)) == len(plan.stages) + 1 == 2


EMPTY_DOC_STRING = b"\x32\x00"  # of an ONNX model: another file, the same graph


def change_classifier(path: Path) -> None:
    (path / "classify.onnx").write_bytes((path / "classify.onnx").read_bytes() + EMPTY_DOC_STRING)
    reseal(path, lambda _: None)


def change_step(path: Path) -> None:
    (path / "step_guided.onnx").write_bytes((path / "step_guided.onnx").read_bytes() + EMPTY_DOC_STRING)
    reseal(path, lambda _: None)


def add_other_precision(path: Path) -> None:
    """Graphs that the manifest calls FP16; other bytes are what matters here."""

    def add(manifest: dict[str, Any]) -> None:
        for graph in list(manifest["graphs"]):
            file = graph["file"].replace(".onnx", ".fp16.onnx")
            (path / file).write_bytes((path / graph["file"]).read_bytes() + EMPTY_DOC_STRING)
            manifest["graphs"].append(graph | {"precision": "fp16", "file": file})

    reseal(path, add)


def change_levels(path: Path) -> None:
    name = json.loads((path / "manifest.json").read_bytes())["noise_levels"]
    with np.load(path / name) as levels:
        np.savez(path / name, alpha_bar=levels["alpha_bar"] * 0.999)
    reseal(path, lambda _: None)


def change_manifest(**fields: dict[str, Any]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        def change(manifest: dict[str, Any]) -> None:
            for place, values in fields.items():
                manifest[place].update(values)

        reseal(path, change)

    return apply


CHANGES: dict[str, Callable[[Path], None]] = {
    "classifier": change_classifier,
    "step": change_step,
    "noise levels": change_levels,
    "image shape": change_manifest(image={"height": 32}),
    "prediction": change_manifest(unet={"prediction": "v_prediction"}),
}


def test_it_changes_with_the_bundle(small_bundle: Bundle, tmp_path: Path, subtests: pytest.Subtests) -> None:
    before = identities(small_bundle, small_bundle.plan())
    for number, (what, change) in enumerate(CHANGES.items()):
        with subtests.test(what):
            copy = Path(shutil.copytree(small_bundle.path, tmp_path / f"{number}"))
            change(copy)
            assert not set(before) & set(identities(open_bundle(copy), small_bundle.plan()))


def test_it_changes_with_the_plan_the_precision_and_the_assembly(
    small_bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(small_bundle_copy)
    plan = bundle.plan()
    others = {"stride": 120, "repeats": 3, "guidance": 1.0, "seed": 1, "norm": "l2", "stages": ()}
    found = [identities(bundle, plan), *(identities(bundle, plan.changed({k: v})) for k, v in others.items())]
    add_other_precision(small_bundle_copy)
    found.append(identities(open_bundle(small_bundle_copy), plan, "fp16"))
    monkeypatch.setattr(identity, "ASSEMBLY", identity.ASSEMBLY + 1)
    found.append(identities(bundle, plan))
    every = [one for some in found for one in some]
    assert len(set(every)) == len(every)


def test_it_does_not_change_with_what_the_plan_does_not_use(small_bundle_copy: Path) -> None:
    """A classifier's stage stays what it is when the UNet is exported anew."""
    before = identities(open_bundle(small_bundle_copy), CLASSIFIER)
    change_step(small_bundle_copy)
    assert identities(open_bundle(small_bundle_copy), CLASSIFIER) == before
