"""Attack: a manifest without one of its fields, or with one it should not have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attacks import undone

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import Manifest, open_bundle

Rewrite = Callable[[Callable[[dict[str, Any]], object]], None]


REQUIRED = [name for name, field in Manifest.model_fields.items() if field.is_required()]  # `latent` may be left out


def test_a_missing_field_is_refused_by_name(victim: Path, rewrite: Rewrite, subtests: pytest.Subtests) -> None:
    for name in REQUIRED:
        with subtests.test(name=name), undone(victim):
            rewrite(lambda manifest: manifest.pop(name))
            with pytest.raises(
                BundleError, match=rf"manifest\.json is invalid: {name}: Field required; export"
            ) as caught:
                open_bundle(victim)
            assert "\n" not in str(caught.value)


def test_a_null_field_is_refused_by_name(victim: Path, rewrite: Rewrite, subtests: pytest.Subtests) -> None:
    for name in REQUIRED:
        with subtests.test(name=name), undone(victim):
            rewrite(lambda manifest: manifest.update({name: None}))
            with pytest.raises(BundleError, match=rf"manifest\.json is invalid: {name}"):
                open_bundle(victim)


def test_a_manifest_without_a_unet_may_name_nothing_that_needs_one(
    victim: Path, rewrite: Rewrite, subtests: pytest.Subtests
) -> None:
    together = "unet and noise_levels go together, and one is missing"
    for gone, problem in (
        (("unet",), together),
        (("noise_levels",), together),
        (("unet", "noise_levels"), "there is no unet, and a plan or an autoencoder that needs one"),
    ):
        with subtests.test(gone=gone), undone(victim):
            rewrite(lambda manifest: [manifest.pop(name) for name in gone])
            with pytest.raises(BundleError, match=problem):
                open_bundle(victim)


def test_an_unknown_field_is_refused_by_name(victim: Path, rewrite: Rewrite) -> None:
    rewrite(lambda manifest: manifest.update({"run_after_opening": "x"}))
    with pytest.raises(BundleError, match="run_after_opening"):
        open_bundle(victim)


def test_a_key_cannot_send_escapes_to_the_terminal(victim: Path, rewrite: Rewrite) -> None:
    rewrite(lambda manifest: manifest.update({"\x1b[31m\nowned" + "x" * 10_000: 1}))
    with pytest.raises(BundleError) as caught:
        open_bundle(victim)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_a_default_plan_that_is_not_there_is_refused_by_name(victim: Path, rewrite: Rewrite) -> None:
    rewrite(lambda manifest: manifest.update({"default_plan": "fastest"}))
    with pytest.raises(BundleError, match="default_plan 'fastest' is not among its plans"):
        open_bundle(victim)
