"""Fitting a fusion: how files are split, how many are needed, what is fitted, and what is refused."""

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from fast_plans import FAST, WITH_BANK
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import assert_refused
from scipy.stats import skew

from diffood.calibration.calibrate import Calibrated, calibrate_files, require_enough
from diffood.calibration.fusing.fusion import fit_fusion
from diffood.calibration.fusing.split import (
    FEWEST_FITTED,
    FEWEST_FUSED,
    MOST_FITTED,
    SHARE,
    fitted_count,
    fused_required,
    require_enough_fused,
    split_sources,
)
from diffood.calibration.fusing.witnesses import fit_witnesses, weigh
from diffood.calibration.promises.thresholds import Method, pac_allowed, pac_required
from diffood.errors import CalibrationError
from diffood.runtime.assembly.stage import FEATURES, IMAGE
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import load_image
from diffood.runtime.images.pixels import Pixels
from diffood.runtime.inputs.items import LocalFile
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.fusion import standardise
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.witnesses.registry import WITNESSES, Witness
from diffood.runtime.pipeline import observe_files
from diffood.runtime.sessions import SessionRequest, StageTensors
from diffood.runtime.sessions.onnxruntime import OnnxRuntimeSession

BATCH = 8


def split(sources: Sequence[LocalFile]) -> tuple[list[LocalFile], list[LocalFile]]:
    """The files to fit on and those to calibrate on, of a bundle no plan was chosen for."""
    parts = split_sources(sources)
    assert parts.tuned == 0
    return parts.fit, parts.calibrate


@pytest.fixture(scope="module")
def detector(small_bundle: Bundle) -> Detector:
    """A detector of the fast plan, not calibrated."""
    return Detector.load(small_bundle, FAST, batch=BATCH, threads=1)


# --- how many ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 20_000))
def test_a_third_is_fitted_on_up_to_a_thousand(count: int) -> None:
    fitted = fitted_count(count)
    assert fitted == min(-(-count // SHARE), MOST_FITTED)
    assert fitted <= fitted_count(count + 1) <= fitted + 1


@given(st.integers(1, 10_000))
def test_the_number_required_is_the_smallest_that_works(needed: int) -> None:
    def works(count: int) -> bool:
        return fitted_count(count) >= FEWEST_FITTED and count - fitted_count(count) >= needed

    total = fused_required(needed)
    assert works(total)
    assert not works(total - 1)
    assert works(total + 1)  # nor does one more spoil it


@given(st.integers(0, 4000), st.sampled_from([0.2, 0.1, 0.05, 0.01, 0.005]), st.sampled_from([0.5, 0.1, 0.05, 0.01]))
def test_the_number_in_the_error_is_enough_and_one_less_is_not(count: int, alpha: float, delta: float) -> None:
    needed = pac_required(alpha, delta)
    total = fused_required(needed)
    assert pac_allowed(total - fitted_count(total), alpha, delta) >= 0  # raises where they do not do
    refused = count < total
    with pytest.raises(CalibrationError, match=rf"so {total} in all") if refused else contextlib.nullcontext():
        require_enough(count, alpha, 1 - delta, "pac", fused=True)


def test_the_error_offers_what_would_help() -> None:
    cases: list[tuple[int, Method, int, bool]] = [
        (88, "pac", 89, True),
        (57, "pac", 89, False),  # no rate makes 57 enough, so none is offered
        (57, "quantile", 58, False),
        (57, "conformal", 58, False),
        (0, "quantile", 58, False),
    ]
    for count, method, total, rate in cases:
        with pytest.raises(CalibrationError, match=f"^{count} images are too few.* so {total} in all") as caught:
            require_enough(count, 0.05, 0.95, method, fused=True)
        assert ("--fpr" in str(caught.value)) == rate, (count, method)
        assert str(caught.value).endswith("or use a plan of one witness: --plan plain.")
        require_enough(total, 0.05, 0.95, method, fused=True)


def test_fewest_fused_leaves_enough_for_the_fusion() -> None:
    assert fitted_count(FEWEST_FUSED) == FEWEST_FITTED > fitted_count(FEWEST_FUSED - 1)
    require_enough_fused(FEWEST_FUSED, 1)


# --- which -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def files_of(contents: Sequence[bytes], names: Sequence[str]) -> Iterator[list[LocalFile]]:
    """One file for each content, listed in this order."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in zip(names, contents, strict=True):
            Path(folder, name).write_bytes(content)
        yield [LocalFile(name, Path(folder, name)) for name in names]


def contents_of(sources: Sequence[LocalFile]) -> list[bytes]:
    return [source.path.read_bytes() for source in sources]


contents = st.lists(st.binary(min_size=1, max_size=3), min_size=1, max_size=25)


@settings(max_examples=40, deadline=None)
@given(contents, st.randoms(use_true_random=False))
def test_files_are_split_by_their_bytes_alone(given_contents: list[bytes], random: object) -> None:
    names = [f"{index}.png" for index in range(len(given_contents))]
    with files_of(given_contents, names) as sources:
        fitted, rest = split(sources)
        assert len(fitted) == fitted_count(len(sources))
        assert sorted(fitted + rest) == sorted(sources)
        for part in (fitted, rest):
            assert part == [source for source in sources if source in part]  # each in the order given
        expected = sorted(contents_of(fitted)), sorted(contents_of(rest))
        digests = [[hashlib.sha256(content).hexdigest() for content in part] for part in expected]
        assert max(digests[0]) <= min(digests[1], default="g")
    shuffled, other_names = list(given_contents), list(reversed(names))
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    with files_of(shuffled, other_names) as sources:
        fitted, rest = split(sources)
        assert (sorted(contents_of(fitted)), sorted(contents_of(rest))) == expected


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), min_size=1, max_size=30))
def test_copies_stay_together_except_those_of_one_image(given_contents: list[bytes]) -> None:
    with files_of(given_contents, [f"{index}.png" for index in range(len(given_contents))]) as sources:
        fitted, rest = split(sources)
        assert len(set(contents_of(fitted)) & set(contents_of(rest))) <= 1


def test_unreadable_files_go_to_the_threshold_and_are_reported(
    folder: Path, tmp_path: Path, detector: Detector
) -> None:
    shutil.copytree(folder, tmp_path / "images")
    (tmp_path / "images" / "0000-gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "images" / "0000-empty.png").touch()
    sources = list_inputs([str(tmp_path / "images")])
    fitted, rest = split(sources)
    broken = {"0000-gone.png", "0000-empty.png"}
    assert broken <= {source.id for source in rest}
    assert len(fitted) == fitted_count(98) == 33
    done = calibrate_files(detector, sources, 0.05, 0.95, "pac")
    assert {name for name, _ in done.set_aside} == {name for name, _ in done.files.set_aside} == broken
    assert (done.calibration.n, done.calibration.set_aside) == (63, 2)
    assert done.calibration.fusion is not None
    assert done.calibration.fusion.n == 33


def test_a_file_that_can_be_read_but_is_no_image_is_reported_from_either_part(
    folder: Path, tmp_path: Path, detector: Detector
) -> None:
    shutil.copytree(folder, tmp_path / "images")
    sources = list_inputs([str(tmp_path / "images")])
    fitted = split_sources(sources).fit
    # of forty texts, the one with the lowest hash falls to one part and that with the highest to the other
    texts = [b"no image, try %d" % number for number in range(40)]
    edge = max(hashlib.sha256(content).hexdigest() for content in contents_of(fitted))
    low = min(texts, key=lambda text: hashlib.sha256(text).hexdigest())
    high = max(texts, key=lambda text: hashlib.sha256(text).hexdigest())
    assert hashlib.sha256(low).hexdigest() < edge < hashlib.sha256(high).hexdigest()
    (tmp_path / "images" / "low.png").write_bytes(low)
    (tmp_path / "images" / "high.png").write_bytes(high)
    done = calibrate_files(detector, list_inputs([str(tmp_path / "images")]), 0.05, 0.95, "pac")
    assert done.fitted is not None
    assert [name for name, _ in done.fitted.set_aside] == ["low.png"]
    assert [name for name, _ in done.files.set_aside] == ["high.png"]
    assert [name for name, _ in done.set_aside] == ["low.png", "high.png"]
    assert done.calibration.set_aside == 2


# --- what is fitted ----------------------------------------------------------------------------------------------


def test_centres_and_scales_are_those_of_the_fitted_images(folder: Path, calibrated: Calibrated) -> None:
    sources = list_inputs([str(folder)])
    fitted = split_sources(sources).fit
    bare = Detector.load(calibrated.detector.bundle, WITH_BANK, batch=BATCH, threads=1)
    seen = [found.result for found in observe_files(bare, fitted) if found.result]
    assert len(seen) == len(fitted) == 32
    columns: dict[str, list[float]] = {"jump": [float(found.distances["jump"].mean()) for found in seen]}
    columns["energy"] = [-float(np.log(np.exp(found.logits.astype(np.float64)).sum())) for found in seen]
    columns["logit_norm"] = [-float(np.sqrt(len(found.logits)) * found.logits.std(dtype=float)) for found in seen]
    for name in ("margin", "inside"):
        how = WITNESSES[name].comparison
        assert how is not None
        vectors = [found.vectors[how.vector] for found in seen]
        columns[name] = how.fit(np.stack(vectors), np.stack([found.logits for found in seen]))[1].tolist()
    record = calibrated.calibration.fusion
    assert record is not None
    assert record.names == WITH_BANK.witnesses
    assert (record.combine, record.n) == ("tail", 32)
    for witness in record.witnesses:
        if witness.name == "reconstruction":  # tests/runtime/method writes it a second time
            continue
        close = {"rel": 1e-5}
        assert witness.center == pytest.approx(np.mean(columns[witness.name]), **close), witness.name
        assert witness.scale == pytest.approx(np.std(columns[witness.name], ddof=1), **close), witness.name


def test_calibration_images_have_standardised_witnesses(calibrated: Calibrated) -> None:
    """The parts are exchangeable, so the other one's mean is within some standard errors of the fitted."""
    record = calibrated.calibration.fusion
    assert record is not None
    values = calibrated.files.witnesses
    assert values.shape == (64, 6)
    z = standardise(record.witnesses, values)
    assert np.abs(z.mean(axis=0)).max() < 4 * np.sqrt(1 / 32 + 1 / 64)
    assert np.all((z.std(axis=0) > 0.5) & (z.std(axis=0) < 2))


def skewed(count: int, seed: int = 0) -> dict[Witness, npt.NDArray[np.float64]]:
    """A gamma variable, a normal one and the normal once more with noise, as three witnesses."""
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=count)
    return {
        "jump": rng.gamma(4, size=count),
        "energy": normal - 9,
        "max_logit": normal + 0.1 * rng.normal(size=count),
    }


def test_tail_makes_skewed_witnesses_nearly_normal_and_sum_keeps_them() -> None:
    columns = skewed(1000)
    bent, straight = fit_witnesses(columns, "tail"), fit_witnesses(columns, "sum")
    assert skew(columns["jump"]) > 0.8
    for found in bent:
        z = found.standardised(columns[found.name])
        assert abs(skew(z)) < 0.2
        assert (z.mean(), z.std(ddof=1)) == pytest.approx((0, 1), abs=1e-9)
    assert bent[1].power == pytest.approx(1, abs=0.2)
    assert {(found.power, found.weight) for found in straight} == {(1.0, 1 / 3)}


def test_an_extreme_value_stands_out_of_a_heavy_tail() -> None:
    """A negative power would make a lognormal sample normal, and bound what any image can reach at three deviations."""
    lognormal = np.exp(np.random.default_rng(0).normal(size=1000))
    (found,) = fit_witnesses({"jump": lognormal}, "tail")
    assert found.power == 0
    assert float(found.standardised(np.array(1e9))) > 20


def test_correlated_witnesses_share_a_weight() -> None:
    jump, energy, logit = (found.weight for found in fit_witnesses(skewed(1000), "tail"))
    assert jump + energy + logit == pytest.approx(1)
    assert jump > 1.5 * max(energy, logit)
    assert energy == pytest.approx(logit, rel=0.2)


def test_weights_are_equal_for_unrelated_witnesses_and_never_negative() -> None:
    rng = np.random.default_rng(0)
    assert weigh(rng.normal(size=(4, 5000))) == pytest.approx(0.25, abs=0.02)
    assert weigh(rng.normal(size=(1, 50))).tolist() == [1.0]
    common, own = rng.normal(size=500), 0.3 * rng.normal(size=500)
    louder = np.stack([common, 3 * common + own, own])  # the second is best left out
    weights = weigh((louder - louder.mean(axis=1)[:, None]) / louder.std(axis=1)[:, None])
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    assert weights.argmin() == 1


class Overflowing(OnnxRuntimeSession):
    """The engine of a precision that overflows on the features of bright images."""

    def run(self, stage: int, feeds: StageTensors) -> StageTensors:
        found = super().run(stage, feeds)
        bright = is_bright(feeds[IMAGE])[:, None]
        return {**found, FEATURES: np.where(bright, np.float32(np.inf), found[FEATURES])}


def is_bright(pixels: Pixels) -> npt.NDArray[np.bool_]:
    return np.asarray(pixels.mean(axis=(1, 2, 3)) > 115)


@pytest.mark.parametrize("plan", [WITH_BANK, FAST], ids=["with their witness", "without a witness of features"])
def test_images_with_values_that_are_not_finite_are_refused_by_name(
    small_bundle: Bundle, folder: Path, plan: Plan
) -> None:
    """Whatever the plan: serving flags such an image, so no fit and no threshold may count it as a usual one."""
    session = Overflowing(SessionRequest(small_bundle, plan, "fp32", BATCH, threads=1))
    sources = list_inputs([str(folder)])
    loaded = [load_image(source.path, small_bundle.manifest.image).pixels for source in sources]
    bright = {source.id for source, image in zip(sources, loaded, strict=True) if is_bright(np.stack([image]))[0]}
    with pytest.raises(CalibrationError, match=r"values that are not finite on '.*', so witnesses cannot") as caught:
        fit_fusion(Detector(small_bundle, plan, session), sources)
    assert str(caught.value).split("'")[1] in bright
    plain = Detector(small_bundle, FAST.plain, Overflowing(SessionRequest(small_bundle, FAST.plain, "fp32", BATCH, 1)))
    with pytest.raises(
        CalibrationError, match=rf"not finite on {len(bright)} of 96 calibration images, the first is '"
    ):
        calibrate_files(plain, sources, 0.05, 0.95, "pac")


def test_identical_images_are_refused_with_the_name_of_the_witness(
    tmp_path: Path, folder: Path, detector: Detector
) -> None:
    content = (folder / "0000.png").read_bytes()
    for index in range(24):
        (tmp_path / f"{index}.png").write_bytes(content)
    with pytest.raises(CalibrationError, match=r"The witness \w+ has mean .* on these 24 images: it does not vary"):
        fit_fusion(detector, list_inputs([str(tmp_path)]))


# --- what cannot be used -----------------------------------------------------------------------------------------


def test_a_folder_of_broken_files_says_what_is_wrong_with_the_first(tmp_path: Path, detector: Detector) -> None:
    for index in range(90):
        (tmp_path / f"{index:02}.png").write_text(f"no image {index}")
    with pytest.raises(CalibrationError, match=r"Only 0 of the 30 images .* at least 20 are needed") as caught:
        calibrate_files(detector, list_inputs([str(tmp_path)]), 0.05, 0.95, "pac")
    assert "The first of 30 that cannot be used is '" in str(caught.value)
    assert "not an image in a format diffood reads" in str(caught.value)


def test_a_calibration_part_that_is_all_broken_says_so(tmp_path: Path, folder: Path, detector: Detector) -> None:
    shutil.copytree(folder, tmp_path / "images")
    sources = list_inputs([str(tmp_path / "images")])
    fitted, rest = split(sources)
    for source in rest:
        source.path.write_bytes(b"")  # unreadable: stays in the part that is calibrated on
    assert [source.id for source in split_sources(sources).fit] == [source.id for source in fitted]
    methods: tuple[Method, ...] = ("pac", "conformal", "quantile")
    cases = [(method, rf"0 given, .* The first of {len(rest)} that cannot be used is") for method in methods]
    assert_refused(CalibrationError, cases, partial(calibrate_files, detector, sources, 0.05, 0.95))
