"""The bundle: what opening gives, which names it knows, and how it is written. Attacks on it are in tests/hostile."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffood.errors import BundleError, UsageError
from diffood.runtime.bundle.bundle import Bundle, Manifest, Role, open_bundle, read_regular
from diffood.runtime.bundle.files import record_bytes
from diffood.runtime.bundle.writing import write_bundle

ROLES: tuple[Role, ...] = ("classify", "step_guided", "step_plain")  # of a bundle of images


def test_opening_gives_manifest_and_noise_levels(small_bundle: Bundle) -> None:
    assert small_bundle.manifest.default_plan in small_bundle.manifest.plans
    assert small_bundle.alpha_bar.dtype == np.float64
    assert np.all(np.diff(small_bundle.alpha_bar) < 0)
    assert 0 < small_bundle.alpha_bar[-1] < small_bundle.alpha_bar[0] < 1


def test_read_returns_the_bytes_the_manifest_hashes(small_bundle: Bundle) -> None:
    for name, entry in small_bundle.manifest.files.items():
        data = small_bundle.read(name)
        assert data == (small_bundle.path / name).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (entry.sha256, entry.size)


def test_every_role_names_a_graph_of_the_files(small_bundle: Bundle, subtests: pytest.Subtests) -> None:
    for role in ROLES:
        with subtests.test(role=role):
            entry = small_bundle.graph(role)
            assert entry.role == role
            assert entry.file in small_bundle.manifest.files


def test_a_role_without_graph_is_an_error_that_lists_the_others(
    small_bundle: Bundle, subtests: pytest.Subtests
) -> None:
    for role in ROLES:
        with subtests.test(role=role):
            others = tuple(entry for entry in small_bundle.manifest.graphs if entry.role != role)
            manifest = small_bundle.manifest.model_copy(update={"graphs": others})
            with pytest.raises(BundleError, match=f"has no {role} graph") as caught:
                replace(small_bundle, manifest=manifest).graph(role)
            assert all(entry.role in str(caught.value) for entry in others)
            assert ("guidance must be 0" in str(caught.value)) == (role == "step_guided")


def test_a_plan_is_found_by_name_and_the_default_without(small_bundle: Bundle) -> None:
    for name, plan in small_bundle.manifest.plans.items():
        assert small_bundle.plan(name) == plan
    assert small_bundle.plan() == small_bundle.plan(small_bundle.manifest.default_plan)


def test_an_unknown_plan_is_an_error_that_lists_the_known_ones(small_bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="No plan 'fastest' in this bundle; it has: default, fast, plain, reference"):
        small_bundle.plan("fastest")


def test_a_manifest_survives_its_json(small_bundle: Bundle) -> None:
    assert Manifest.model_validate_json(small_bundle.manifest.model_dump_json()) == small_bundle.manifest


def test_a_manifest_is_written_as_the_shipped_one_is(small_bundle: Bundle) -> None:
    shipped = (small_bundle.path / "manifest.json").read_bytes()
    assert record_bytes(small_bundle.manifest) == shipped


def test_writing_hashes_all_files_but_manifest_and_calibration(small_bundle_copy: Path) -> None:
    before = open_bundle(small_bundle_copy).manifest
    (small_bundle_copy / "calibration.json").write_text("{}")
    (small_bundle_copy / "classify.onnx").write_bytes(b"other")
    written = write_bundle(small_bundle_copy, lambda files: before.model_copy(update={"files": files}))
    assert written.files.keys() == before.files.keys()
    assert written.files["classify.onnx"].size == 5
    assert open_bundle(small_bundle_copy).read("classify.onnx") == b"other"


def test_reading_closes_its_descriptors(small_bundle_copy: Path) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("open descriptors are counted in /proc")
    (small_bundle_copy / "folder").mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        for name, limit in (("folder", 100), ("manifest.json", 1), ("nowhere", 1)):
            with pytest.raises(BundleError):
                read_regular(small_bundle_copy, name, limit)
        read_regular(small_bundle_copy, "manifest.json", 10**6)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_path_may_be_text(small_bundle: Bundle) -> None:
    assert open_bundle(str(small_bundle.path)).path == small_bundle.path
