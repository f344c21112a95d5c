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
from sklearn.neighbors import NearestNeighbors

from diffood.runtime.method.witnesses.definition import Evidence
from diffood.runtime.method.witnesses.knn import NEIGHBOUR, knn
from diffood.runtime.method.witnesses.logits import energy, logit_norm
from diffood.runtime.method.witnesses.registry import (
    WITNESSES,
    Witness,
    classify_denoised,
    measurable,
    measure,
    measure_in_bank,
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
    )


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


# --- knn ---------------------------------------------------------------------------------------------------------


def unit_rows(count: int, width: int, seed: int) -> Array:
    rows = np.random.default_rng(seed).normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_knn_is_the_distance_scikit_learn_finds(subtests: pytest.Subtests) -> None:
    for count, width in [(1, 4), (4, 3), (5, 8), (6, 8), (300, 64)]:
        with subtests.test(count=count, width=width):
            bank, asked = unit_rows(count, width, 0), 7 * unit_rows(20, width, 1)  # of any length
            rank = min(5, count)  # the fifth neighbour: another would be another witness
            search = NearestNeighbors(n_neighbors=rank, algorithm="brute").fit(bank)
            expected = search.kneighbors(asked / np.linalg.norm(asked, axis=1, keepdims=True))[0][:, -1]
            assert [knn(row, bank) for row in asked] == pytest.approx(expected, rel=1e-4)


def test_a_row_of_the_bank_does_not_count_itself(subtests: pytest.Subtests) -> None:
    for count in [6, 40]:
        with subtests.test(count=count):
            bank = unit_rows(count, 8, 2)
            search = NearestNeighbors(n_neighbors=min(NEIGHBOUR, count - 1), algorithm="brute").fit(bank)
            expected = search.kneighbors()[0][:, -1]  # without X: scikit-learn leaves each row's own out
            assert [knn(row, bank, in_bank=True) for row in bank] == pytest.approx(expected, rel=1e-4)
            for index, row in enumerate(bank):
                assert knn(row, bank, in_bank=True) == pytest.approx(knn(row, np.delete(bank, index, axis=0)), rel=1e-5)


@given(st.integers(1, 12), st.integers(2, 16), st.integers(0, 2**16), st.floats(0.01, 100))
def test_knn_lies_between_nought_and_two_whatever_the_length_and_order(
    count: int, width: int, seed: int, length: float
) -> None:
    bank, row = unit_rows(count, width, seed), unit_rows(1, width, seed + 1)[0]
    found = knn(row, bank)
    assert 0 <= found <= 2 + 1e-6
    assert knn(np.float32(length) * row, bank) == pytest.approx(found, abs=2e-3)
    assert knn(row, bank[::-1]) == pytest.approx(found, abs=2e-3)
    closer = np.concatenate([bank, row[None]])
    assert knn(row, closer) <= found + 1e-6  # more of the same makes it no stranger


def test_knn_is_nought_for_a_bank_of_copies_and_two_for_the_opposite() -> None:
    row = unit_rows(1, 32, 3)[0]
    copies = np.repeat(row[None], NEIGHBOUR, axis=0)
    assert knn(row, copies) == pytest.approx(0, abs=1e-3)  # the root of float32's rounding
    assert knn(-row, copies) == pytest.approx(2, abs=1e-6)
    assert knn(np.zeros(32, np.float32), copies) == pytest.approx(math.sqrt(2))


def test_knn_is_nought_and_no_error_where_rounding_makes_a_similarity_more_than_one() -> None:
    long = np.full((NEIGHBOUR, 4), 0.5 + 1e-6, np.float32)  # unit but for rounding
    assert knn(long[0], long) == 0


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
    logits, bank = np.array([3, 1, -2], np.float32), unit_rows(9, 3, 4)
    found = evidence_of(logits)
    alone: dict[Witness, float] = {name: float(measure((name,), found, bank)[0]) for name in tuple(WITNESSES)}
    assert alone["jump"] == pytest.approx(0.2)
    assert alone["reconstruction"] == pytest.approx(0.4)  # the root of the mean
    assert alone["logit_norm"] == logit_norm(logits)
    assert alone["energy"] == energy(logits)
    assert alone["knn"] == knn(found.features, bank)
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
            for found in (sound.logits, sound.features, *sound.distances.values()):
                found.flat[0] = bad
            assert not math.isfinite(measure((name,), sound, unit_rows(9, 3, 5))[0])


def test_every_witness_says_what_it_means_under_its_own_name() -> None:
    assert list(WITNESSES) == ["jump", "reconstruction", "logit_norm", "energy", "max_logit", "msp", "knn"]
    for name, witness in WITNESSES.items():
        assert witness.name == name
        assert witness.meaning.endswith("."), name


def test_every_witness_says_what_it_needs() -> None:
    names = tuple(WITNESSES)
    assert measurable(names, repeats=1) == names
    assert measurable(names, repeats=0) == ("logit_norm", "energy", "max_logit", "msp", "knn")
    assert [name for name in names if classify_denoised([name])] == ["jump"]
    assert need_bank(names) == ("knn",)
    bank = unit_rows(9, 3, 4)
    assert measure_in_bank("knn", bank, bank, own=True).tolist() == [knn(row, bank, in_bank=True) for row in bank]


def test_evidence_cut_after_fewer_repeats_is_that_of_a_shorter_pass() -> None:
    logits = np.array([3, 1, -2], np.float32)
    found = evidence_of(logits, jump=(0.1, 0.3, 0.5))
    found.distances["jump"][1] = 0.9
    assert (found.repeats, found.first(1).repeats, found.first(0).repeats) == (2, 1, 0)
    assert found.by_start(3).tolist() == pytest.approx([0.5, 0.6, 0.7])
    assert found.first(1).by_start(3).tolist() == pytest.approx([0.1, 0.3, 0.5])
    assert np.isnan(found.first(0).by_start(3)).tolist() == [True] * 3
    assert (found.predicted, found.confidence) == (0, pytest.approx(softmax(logits.astype(np.float64)).max(), rel=1e-6))
