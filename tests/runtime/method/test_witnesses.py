"""Witnesses: each against a second writing of its formula, and the laws it must keep whatever the image."""

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reconstruction import reconstruction
from scipy.special import logsumexp, softmax

from diffood.errors import BundleError
from diffood.runtime.method.witnesses.definition import Evidence
from diffood.runtime.method.witnesses.inside import fit_classes, nearest_class
from diffood.runtime.method.witnesses.logits import energy, logit_norm
from diffood.runtime.method.witnesses.margin import fit_margin, margin
from diffood.runtime.method.witnesses.registry import (
    WITNESSES,
    Bank,
    Witness,
    classify_denoised,
    inner_vectors,
    measurable,
    measure,
    need_bank,
)

Array = npt.NDArray[np.float32]

finite = st.floats(-50, 50, width=32)
some_logits = arrays(np.float32, st.integers(2, 12), elements=finite)
shapes = st.tuples(st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9))


def pictures(*leading: int, shape: tuple[int, int, int], seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, (*leading, *shape)).astype(np.float32)


def evidence_of(logits: Array, features: Array | None = None, jump: tuple[float, ...] = (0.1, 0.3)) -> Evidence:
    jumps = np.tile(np.array(jump, np.float32), (2, 1))
    return Evidence(
        pixels=np.zeros((1, 4, 4), np.uint8),
        logits=logits,
        features=np.ones(3, np.float32) if features is None else features,
        sound=np.array(True),
        repeats=2,
        distances={"jump": jumps, "reconstruction": np.array([[0.04, 0.12], [0.2, 0.28]], np.float32)},
        denoised=pictures(shape=(1, 4, 4), seed=1),
        inner={name: np.array([0.5, -1, 2, 0.25], np.float32) for name in ("inside", "snapshot")},
    )


def some_bank(seed: int) -> Bank:
    """Of 30 vectors of three classes, for what `evidence_of` gives."""
    drawn = np.random.default_rng(seed)
    logits, features, inside = (drawn.normal(size=(30, width)).astype(np.float32) for width in (3, 3, 4))
    of_inside = fit_classes(inside, logits)[0]
    return {"margin": fit_margin(features, logits)[0], "inside": of_inside, "snapshot": of_inside}


# --- reconstruction ----------------------------------------------------------------------------------------------


def blurred_by_loops(image: npt.NDArray[np.float64], width: float) -> npt.NDArray[np.float64]:
    """One plane [H, W] convolved with the Gaussian itself, cut at 4 widths; beyond the border it is mirrored."""
    radius = int(4 * width + 0.5)
    weights = {step: math.exp(-(step**2) / (2 * width**2)) for step in range(-radius, radius + 1)}
    total = sum(weights.values())

    def mirrored(index: int, size: int) -> int:
        index %= 2 * size  # d c b a | a b c d | d c b a
        return index if index < size else 2 * size - 1 - index

    out = np.zeros_like(image)
    height, wide = image.shape
    for row in range(height):
        for column in range(wide):
            for down, a in weights.items():
                for right, b in weights.items():
                    out[row, column] += (
                        a * b / total**2 * image[mirrored(row + down, height), mirrored(column + right, wide)]
                    )
    return out


def test_reconstruction_is_the_rms_of_differences_convolved_with_a_gaussian(subtests: pytest.Subtests) -> None:
    for shape in [(1, 1, 1), (3, 1, 1), (1, 28, 28), (3, 30, 17), (1, 2, 40), (3, 56, 33)]:
        with subtests.test(shape=shape):
            x, denoised = pictures(shape=shape), pictures(2, 1, shape=shape, seed=1)
            width = min(shape[1:]) / 28
            squares = [
                blurred_by_loops((image[plane].astype(np.float64) - x[plane]), width) ** 2
                for image in denoised[:, 0]
                for plane in range(shape[0])
            ]
            assert reconstruction(x, denoised) == pytest.approx(math.sqrt(np.mean(squares)), rel=1e-9)


@given(shapes, st.integers(0, 2**16))
def test_reconstruction_is_nothing_for_the_image_itself_and_grows_with_what_differs(
    shape: tuple[int, int, int], seed: int
) -> None:
    x, other = pictures(shape=shape, seed=seed), pictures(2, 3, shape=shape, seed=seed + 1)
    assert reconstruction(x, np.broadcast_to(x, (2, 3, *shape))) == 0
    near = (x + 0.25 * (other - x)).astype(np.float32)
    assert reconstruction(x, near) == pytest.approx(0.25 * reconstruction(x, other), rel=1e-4, abs=1e-6)
    assert reconstruction(x, other) <= np.sqrt(np.mean((other.astype(np.float64) - x) ** 2)) + 1e-9  # blurred: less


@given(shapes, st.floats(-1, 1, width=32))
def test_a_change_of_all_pixels_alike_is_measured_in_full(shape: tuple[int, int, int], shift: float) -> None:
    x = pictures(shape=shape)
    assert reconstruction(x, (x + np.float32(shift))[None, None]) == pytest.approx(abs(shift), rel=1e-5, abs=1e-6)


def test_texture_counts_for_less_than_a_shape_of_the_same_energy() -> None:
    x = np.zeros((1, 28, 28), np.float32)
    checks = np.indices((28, 28)).sum(axis=0) % 2 * 2.0 - 1
    half = np.where(np.arange(28) < 14, 1.0, -1.0) * np.ones((28, 1))
    texture, shape = (reconstruction(x, field.astype(np.float32)[None, None, None]) for field in (checks, half))
    assert texture < 0.1
    assert shape > 0.8


# --- of the logits -----------------------------------------------------------------------------------------------


@given(some_logits)
def test_energy_is_minus_logsumexp_and_lies_between_its_bounds(logits: Array) -> None:
    wide = logits.astype(np.float64)
    assert energy(logits) == pytest.approx(-logsumexp(wide), rel=1e-12, abs=1e-12)
    assert wide.max() - 1e-9 <= -energy(logits) <= wide.max() + math.log(len(wide)) + 1e-9


@given(some_logits, st.floats(-100, 100))
def test_energy_moves_against_a_shift_of_the_logits(logits: Array, shift: float) -> None:
    wide = logits.astype(np.float64)
    assert energy(wide + shift) == pytest.approx(energy(wide) - shift, rel=1e-9, abs=1e-9)


@given(some_logits)
def test_logit_norm_is_minus_the_square_root_of_k_times_the_variance(logits: Array) -> None:
    wide = logits.astype(np.float64)
    assert logit_norm(logits) == pytest.approx(-math.sqrt(len(wide) * wide.var()), rel=1e-9, abs=1e-9)
    assert logit_norm(logits) <= 0


@given(some_logits, st.floats(-100, 100), st.floats(0, 10))
def test_logit_norm_keeps_its_laws_of_shift_and_scale(logits: Array, shift: float, scale: float) -> None:
    wide = logits.astype(np.float64)
    assert logit_norm(wide + shift) == pytest.approx(logit_norm(wide), abs=1e-9)
    assert logit_norm(scale * wide) == pytest.approx(scale * logit_norm(wide), rel=1e-9, abs=1e-9)
    assert logit_norm(np.full(len(wide), shift)) == pytest.approx(0, abs=1e-9)  # flat logits are the most suspicious


@given(some_logits, st.floats(1, 10))
def test_a_surer_classifier_is_never_more_suspicious(logits: Array, factor: float) -> None:
    """Stretching logits about their mean makes the largest one larger against the others."""
    wide = logits.astype(np.float64)
    surer = wide.mean() + factor * (wide - wide.mean())
    for witness in ("logit_norm", "energy", "max_logit", "msp"):
        assert value(witness, surer) <= value(witness, wide) + 1e-9, witness


def value(name: Witness, logits: npt.NDArray[Any]) -> float:
    return float(measure((name,), evidence_of(logits))[0])


@given(some_logits)
def test_max_logit_and_msp_are_what_they_are_called(logits: Array) -> None:
    wide = logits.astype(np.float64)
    assert value("max_logit", logits) == -wide.max()
    assert value("msp", logits) == pytest.approx(-softmax(wide).max(), rel=1e-12)


# --- all ---------------------------------------------------------------------------------------------------------


def test_evidence_counts_repeats_and_averages_over_them_alone() -> None:
    found = evidence_of(np.array([3, 1, -2], np.float32), jump=(0.1, 0.3, 0.8))
    found.distances["jump"][1] += 1
    assert found.repeats == 2
    assert found.by_start(3).tolist() == pytest.approx([0.6, 0.8, 1.3])
    assert found.first(1).by_start(3).tolist() == pytest.approx([0.1, 0.3, 0.8])
    assert found.first(1).repeats == 1
    assert found.first(0).denoised is None
    assert np.isnan(found.first(0).by_start(3)).all()
    assert found.predicted == 0
    assert found.confidence == pytest.approx(float(softmax([3, 1, -2])[0]), rel=1e-6)


def test_every_witness_is_measured_in_the_order_asked() -> None:
    logits, bank = np.array([3, 1, -2], np.float32), some_bank(4)
    found = evidence_of(logits)
    alone: dict[Witness, float] = {name: float(measure((name,), found, bank)[0]) for name in tuple(WITNESSES)}
    assert alone["jump"] == pytest.approx(0.2)
    assert alone["reconstruction"] == pytest.approx(0.4)  # the root of the mean
    assert alone["logit_norm"] == logit_norm(logits)
    assert alone["energy"] == energy(logits)
    assert alone["margin"] == margin(bank["margin"], found.features, logits)
    assert alone["inside"] == nearest_class(bank["inside"], found.inner["inside"], logits)
    assert alone["snapshot"] == alone["inside"]
    assert np.isnan(measure(("snapshot",), found.first(0), bank)[0])
    names = tuple(reversed(alone))
    values = measure(names, found, bank)
    assert values.dtype == np.float64
    assert values.tolist() == [alone[name] for name in names]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_what_is_no_number_never_becomes_one(subtests: pytest.Subtests) -> None:
    """A finite value here would let an image pass that the models could not say anything of."""
    for bad, name in itertools.product([math.nan, math.inf], tuple(WITNESSES)):
        with subtests.test(bad=bad, name=name):
            sound = evidence_of(np.array([3, 1, -2], np.float32))
            for found in (sound.logits, sound.features, *sound.distances.values(), *sound.inner.values()):
                found.flat[0] = bad
            assert not math.isfinite(measure((name,), sound, some_bank(5))[0])


def test_every_witness_says_what_it_means_under_its_own_name() -> None:
    of_logits, compared = ["logit_norm", "energy", "max_logit", "msp"], ["margin", "inside", "snapshot"]
    assert list(WITNESSES) == ["jump", "reconstruction", *of_logits, *compared]
    for name, witness in WITNESSES.items():
        assert witness.name == name
        assert witness.meaning.endswith("."), name


def test_every_witness_says_what_it_needs() -> None:
    names = tuple(WITNESSES)
    assert measurable(names, repeats=1) == names
    assert measurable(names, repeats=0) == ("logit_norm", "energy", "max_logit", "msp", "margin", "inside")
    assert [name for name in names if classify_denoised([name])] == ["jump"]
    assert need_bank(names) == ("margin", "inside", "snapshot")
    assert inner_vectors(names) == ("inside", "snapshot")


def test_a_bank_of_other_models_is_refused() -> None:
    found, bank = evidence_of(np.array([3, 1, -2], np.float32)), dict(some_bank(4))
    bank["inside"] = fit_classes(pictures(shape=(9, 1, 5))[:, 0], np.eye(9, 3, dtype=np.float32))[0]
    with pytest.raises(BundleError, match=r"has 5 values for the witness inside, and the models give 4: .* Calibrate"):
        measure(("inside",), found, bank)


def test_evidence_cut_after_fewer_repeats_is_that_of_a_shorter_pass() -> None:
    logits = np.array([3, 1, -2], np.float32)
    found = evidence_of(logits, jump=(0.1, 0.3, 0.5))
    found.distances["jump"][1] = 0.9
    assert (found.repeats, found.first(1).repeats, found.first(0).repeats) == (2, 1, 0)
    assert found.by_start(3).tolist() == pytest.approx([0.5, 0.6, 0.7])
    assert found.first(1).by_start(3).tolist() == pytest.approx([0.1, 0.3, 0.5])
    assert np.isnan(found.first(0).by_start(3)).tolist() == [True] * 3
    assert (found.predicted, found.confidence) == (0, pytest.approx(softmax(logits.astype(np.float64)).max(), rel=1e-6))
