"""Attack: a plan, a record, an engine's folder or all engines are a link to a place outside, or a pipe."""

import os
from pathlib import Path

import pytest
from planted_engine import plant_engine

from diffood.errors import BundleError
from diffood.export.engines.build import build_engines
from diffood.export.request import EngineBuildRequest
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.engines import Profile, list_engines, read_plan

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and FIFOs as POSIX has them")


def test_a_plan_that_is_a_link_to_the_same_bytes_is_refused(victim: Path, tmp_path: Path) -> None:
    plan = plant_engine(victim) / "stage1.plan"
    plan.rename(tmp_path / "stage1.plan")
    plan.symlink_to(tmp_path / "stage1.plan")
    (engine,) = list_engines(open_bundle(victim))
    with pytest.raises(BundleError, match=r"stage1.plan cannot be opened \(.+\); remove its folder"):
        read_plan(engine, engine.record.stages[0])


def test_a_plan_that_is_a_pipe_is_refused_and_not_waited_for(victim: Path) -> None:
    plan = plant_engine(victim) / "stage1.plan"
    plan.unlink()
    os.mkfifo(plan)
    (engine,) = list_engines(open_bundle(victim))
    with pytest.raises(BundleError, match="not a regular file"):
        read_plan(engine, engine.record.stages[0])


def test_a_record_that_is_a_link_is_refused(victim: Path, tmp_path: Path) -> None:
    record = plant_engine(victim) / "engine.json"
    record.rename(tmp_path / "engine.json")
    record.symlink_to(tmp_path / "engine.json")
    with pytest.raises(BundleError, match=r"engine.json cannot be opened"):
        list_engines(open_bundle(victim))


def test_an_engine_folder_that_is_a_link_is_refused(victim: Path, tmp_path: Path) -> None:
    folder = plant_engine(victim)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="is a link"):
        list_engines(open_bundle(victim))


def test_engines_that_are_a_link_are_neither_read_nor_written_to(victim: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (victim / "engines").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="engines is a link"):
        list_engines(open_bundle(victim))
    with pytest.raises(BundleError, match="engines is a link"):
        request = EngineBuildRequest("tensorrt-rtx", Profile(smallest=1, usual=2, largest=4), ("sm86",), ("fp32",))
        build_engines(victim, request, lambda _: None)
    assert not list((tmp_path / "elsewhere").iterdir())
