"""The sets of a split, and the tables made from a cache."""

from pathlib import Path

import numpy as np
import pytest

from diffood.calibration.fusing.witnesses import fit_witnesses
from diffood.calibration.metrics.rates import auroc
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.fusion import fuse
from diffood.runtime.method.noise import make_pool
from research.datasets import load_training_data
from research.left_out.cache import BLOCKS, CHANNELS, NOISINGS, WITHOUT_CLASS, SplitCache, noising_key
from research.left_out.fusing import fit_tail
from research.left_out.scores import score_all
from research.left_out.sets import split_sets
from research.left_out.table import mean_table, measure_split, split_table
from research.scorers.registry import SCORERS

CLASSES, WIDTH, COUNT = 7, 128, 60
SETS = ("train", "validation", "test", "near-3", "near-7", "near-9", "far-digits", "far-photos")


def test_no_image_is_in_two_sets_and_no_class_left_out_is_trained_on(garments: Path) -> None:
    found = split_sets(garments, (3, 7, 9))
    seen = {name: {tuple(image[0, :3]) for image in stored.images} for name, stored in found.items()}
    kept = [label for label in range(10) if label not in (3, 7, 9)]
    own = ("train", "validation", "test", "near-3", "near-7", "near-9")
    assert sum(len(seen[name]) for name in own) == len(set().union(*(seen[name] for name in own)))
    for name, split in (("train", 0), ("validation", 1), ("test", 1)):
        assert {(label, place) for label, _, place in seen[name]} == {(label, split) for label in kept}
        assert [kept[label] for label in found[name].labels] == list(found[name].images[:, 0, 0])
    for label in (3, 7, 9):
        assert {first for first, _, _ in seen[f"near-{label}"]} == {label}
        assert len(seen[f"near-{label}"]) == 42  # nothing of them was trained on
        assert set(found[f"near-{label}"].images[:12, 0, 2]) == {1}  # held-out ones first
    assert len(load_training_data(garments).images) == 300


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> SplitCache:
    """A cache of random numbers, with features around class means in-distribution and elsewhere out of it."""
    generator = np.random.default_rng(3)
    centres, head = np.abs(generator.normal(0, 2, (CLASSES, WIDTH))), generator.normal(0, 0.2, (CLASSES, WIDTH))
    found = {"head_weight": head, "head_bias": np.zeros(CLASSES), "alpha_bar": np.linspace(0.999, 0.01, 1000)}
    for name in SETS:
        count = 3 * COUNT if name == "train" else COUNT
        labels = generator.integers(CLASSES, size=count)
        means = centres[labels] if "-" not in name else 0.7
        features = np.abs(means + generator.normal(0, 0.5, (count, WIDTH)))
        found |= {f"{name}/images": generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)}
        found |= {f"{name}/labels": labels, f"{name}/features": features, f"{name}/logits": features @ head.T}
        found[f"{name}/perturbed"] = features + generator.normal(0, 0.1, features.shape)
        for time, repeat in NOISINGS:
            key = f"{name}/{noising_key(time, repeat)}"
            found[f"{key}/eps"] = generator.normal(size=(count, 1, 28, 28))
            for kind in ("one", "guided") if time in WITHOUT_CLASS else ("one",):
                moved = features + generator.normal(0, 0.1 if "-" not in name else 1.0, features.shape)
                found[f"{key}/{kind}/features"] = moved
                found[f"{key}/{kind}/logits"] = moved @ head.T
                found[f"{key}/{kind}/reconstruction"] = generator.uniform(1, 2, count)
    path = tmp_path_factory.mktemp("cache") / "clothes-0.npz"
    np.savez(path, allow_pickle=False, **found)
    snapshots = {f"{name}/blocks": generator.normal(size=(40, 2 * sum(CHANNELS))) for name in SETS[1:]}
    paths = {f"{name}/path": generator.normal(2 * ("-" in name), 1, (40, 6)) for name in SETS[1:]}
    np.savez(path.with_suffix(".paths.npz"), allow_pickle=False, **snapshots, **paths)
    return SplitCache(path)


def test_table_has_every_detector_with_its_own_numbers(cache: SplitCache, capsys: pytest.CaptureFixture[str]) -> None:
    scores, results = score_all(cache), measure_split(cache.path)
    assert [row.name for row in results] == list(scores)
    assert {"diffood default", "diffood plain", "CFS", "DiffPath-6D", *SCORERS} <= set(scores)
    assert results[0].name == "diffood default" and results[0].kinds["near"].gain is None
    for row in results:
        scored = scores[row.name]
        areas = {key: auroc(scored.ind, ood) for key, ood in scored.sets.items()}
        assert row.classes["7"][0] == areas["near-7"]
        for kind in ("near", "far"):
            mean = np.mean([area for key, area in areas.items() if key.startswith(kind)])
            assert row.kinds[kind].auroc.value == pytest.approx(mean)
            if row is not results[0] and len(scored.ind) == COUNT:
                gain = row.kinds[kind].gain
                assert gain.value == pytest.approx(results[0].kinds[kind].auroc.value - mean)
    assert {len(scores["CFS"].ind), len(scores["MSP"].ind)} == {40, COUNT}
    one, mean = split_table(results), mean_table([results, results])
    assert one.count("\n") == mean.count("\n") == len(scores) + 1
    assert "| class 3 | class 7 | class 9 | near |" in one


def test_cache_without_a_unet_gives_detectors_of_the_classifier_alone(cache: SplitCache) -> None:
    path = cache.path.with_name("classifier-alone.npz")
    kept = {key: cache[key] for key in cache.keys if "/t" not in key.removeprefix("test") and key != "alpha_bar"}
    np.savez(path, allow_pickle=False, **kept)
    results = measure_split(path)
    assert [row.name for row in results] == list(SCORERS)
    assert {found.gain for row in results for found in row.kinds.values()} == {None}
    assert "| MSP | 0 |" in split_table(results)


def test_fusion_of_scores_is_that_of_witnesses() -> None:
    generator = np.random.default_rng(5)
    columns = {name: generator.gamma(2, 1, 300) for name in ("jump", "reconstruction", "energy")}
    others = [values + generator.normal(0, 1, 300) for values in columns.values()]
    expected = fuse(fit_witnesses(columns, "tail"), "tail", np.stack(others, 1))
    np.testing.assert_allclose(fit_tail(list(columns.values()))(others), expected, rtol=1e-9)


def test_block_of_a_cache_is_that_block(cache: SplitCache) -> None:
    paths = SplitCache(cache.path.with_suffix(".paths.npz"))
    parts = [paths.block("test", "blocks", block) for block in BLOCKS]
    np.testing.assert_array_equal(np.concatenate(parts, 1), paths["test/blocks"])
    assert [part.shape[1] for part in parts] == [2 * channels for channels in CHANNELS]


def test_images_denoised_by_the_noise_itself_come_back(cache: SplitCache) -> None:
    pixels = cache["test/images"][:, None]
    noise = make_pool(0, 1, 784, 784).draw(pixels, pixels.shape[1:])[0]
    path = cache.path.with_name("true-noise.npz")
    np.savez(
        path,
        **{"test/images": pixels[:, 0], "test/t360-0/eps": noise},
        alpha_bar=cache["alpha_bar"],
    )
    np.testing.assert_allclose(SplitCache(path).denoised("test", 360), from_pixels(pixels), atol=1e-5)
