"""A training from images to the folder that export takes, and what happens when it is stopped."""

import contextlib
import dataclasses
import itertools
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffood.errors import TrainingError, UsageError
from diffood.training.request import TrainingRequest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from torch.optim.optimizer import register_optimizer_step_post_hook

from diffood.export.sources.unets.diffusers_model import WEIGHTS
from diffood.export.sources.unets.load import load_unet
from diffood.training.checkpoint import CHECKPOINT, HeldOutLoss
from diffood.training.folder import CARD, CURVE, PICTURE
from diffood.training.loop import has_stalled, rate_at

Ask = Callable[..., TrainingRequest]
Train = Callable[..., list[str]]


def stop_after(steps: int, error: type[BaseException]) -> Any:
    """A progress bar that ends the training with an error after so many steps."""

    @contextlib.contextmanager
    def show(what: str, *_: object) -> Iterator[Callable[[int], None]]:
        count = itertools.count(1)

        def advance(_: int) -> None:
            if what == "training" and next(count) == steps:
                raise error

        yield advance

    return show


def test_a_trained_folder_is_what_export_takes(ask: Ask, train: Train) -> None:
    lines = train(ask(picture_every=5))
    folder = ask().output
    unet = load_unet(folder)
    assert (unet.channels, unet.height, unet.width) == (1, 8, 8)
    assert unet.labels(3) == "class+null"
    assert unet.class_names == ("bars", "dots", "grey")
    assert unet.trained_on is not None
    assert len(unet.trained_on) == 48  # those held out chose the weights, so they count too
    assert unet.schedule.origin == "scheduler_config.json"
    assert unet.schedule.prediction == "epsilon"
    assert len(unet.schedule.alpha_bar) == 1000
    with Image.open(folder / PICTURE) as picture:
        assert picture.size == (8 * 8 * 8, 4 * 8 * 8)  # 8 columns and 4 rows of 8x8 images, each enlarged 8 times
    curve = [json.loads(line) for line in (folder / CURVE).read_text().splitlines()]
    assert [look["step"] for look in curve] == [5, 10, 12]
    card = (folder / CARD).read_text()
    assert "| classes | 3 in this order, the null class last: bars, dots, grey |" in card
    assert "| images | 46 trained on, 2 held out, 0 repeated, 0 set aside |" in card
    assert "| ended | after the steps asked for |" in card
    assert any(line.startswith("trained     12 steps") for line in lines)


def test_a_name_in_the_model_card_is_text(ask: Ask, train: Train, tiny_images: Path, tmp_path: Path) -> None:
    folders = Path(shutil.copytree(tiny_images, tmp_path / "images"))
    (folders / "bars").rename(folders / "|**b** [l](www.e) <i>$x$\u200b")
    train(ask(images=(str(folders),), steps=1))
    [line] = [line for line in (tmp_path / "unet" / CARD).read_text().split("\n") if line.startswith("| classes")]
    assert "grey, \\|\\*\\*b\\*\\* \\[l\\](www\\.e) \\<i\\>\\$x\\$\\\\u200b" in line


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(ask: Ask, train: Train, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(ask(output=tmp_path / name, seed=seed, steps=3))
        weights.append((tmp_path / name / WEIGHTS).read_bytes())
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize(("steps", "error"), [(3, KeyboardInterrupt), (7, KeyboardInterrupt), (8, SystemExit)])
def test_a_stopped_training_continues_to_the_same_weights(
    ask: Ask, train: Train, tmp_path: Path, steps: int, error: type[BaseException]
) -> None:
    train(ask(output=tmp_path / "whole"))
    with pytest.raises(error):
        train(ask(), stop_after(steps, error))
    assert (ask().output / CHECKPOINT).is_file()
    at = steps if error is KeyboardInterrupt else 5  # interrupted: saved there; ended otherwise: at the last look
    assert f"continued   after step {at} of {ask().output}" in train(ask())
    for name in (WEIGHTS, "config.json", "scheduler_config.json", "class_names.txt"):
        assert (ask().output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_signal_within_a_step_lets_it_end(ask: Ask, train: Train, tmp_path: Path) -> None:
    train(ask(output=tmp_path / "whole"))
    steps = itertools.count(1)
    hook = register_optimizer_step_post_hook(  # the averages, and the count, are still those of the step before
        lambda *given: signal.raise_signal(signal.SIGTERM) if next(steps) == 3 else None
    )
    with pytest.raises(KeyboardInterrupt):
        train(ask())
    hook.remove()
    assert f"continued   after step 3 of {ask().output}" in train(ask())
    assert (ask().output / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_a_stopped_training_continues_only_as_what_it_was(ask: Ask, train: Train, tiny_images: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(ask(), stop_after(3, KeyboardInterrupt))
    for changes, part in (
        ({"seed": 1}, "other seed: 0 there, 1 now"),
        ({"batch": 5}, "other batch: 4 there, 5 now"),
        ({"labels": "none"}, "other labels"),
        ({"images": (str(tiny_images / "bars"), str(tiny_images / "dots"))}, "other images"),
    ):
        with pytest.raises(UsageError, match=part):
            train(ask(**changes))
    assert "trained     14 steps" in "\n".join(train(ask(steps=14)))  # more steps are no other training


def test_a_folder_with_something_else_is_left_alone(ask: Ask, train: Train) -> None:
    folder = ask().output
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"thesis\.txt"):
            train(ask(overwrite=overwrite))
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_a_finished_training_goes_on_with_more_steps_or_minutes(ask: Ask, train: Train) -> None:
    train(ask(steps=2))
    assert "continued   after step 2" in "\n".join(train(ask(steps=3)))
    lines = train(ask(steps=3))
    assert any(line.startswith("trained     3 steps") for line in lines)
    lines = train(ask(steps=9, minutes=1e-4))
    assert any(line.startswith("trained     4 steps") for line in lines)  # its time was over
    assert any(line.startswith("trained     9 steps") for line in train(ask(steps=9, minutes=60)))


def test_a_unet_without_its_checkpoint_is_replaced_on_request_alone(ask: Ask, train: Train) -> None:
    train(ask(steps=2))
    (ask().output / CHECKPOINT).unlink()
    before = (ask().output / WEIGHTS).read_bytes()
    with pytest.raises(UsageError, match="--overwrite"):
        train(ask(steps=3))
    assert (ask().output / WEIGHTS).read_bytes() == before
    train(ask(steps=3, overwrite=True))
    assert (ask().output / WEIGHTS).read_bytes() != before


def test_a_damaged_checkpoint_is_named(ask: Ask, train: Train, subtests: pytest.Subtests) -> None:
    for case, damage in {"empty": b"", "other bytes": b"no tensors", "cut": None}.items():
        with subtests.test(case=case):
            with pytest.raises(KeyboardInterrupt):
                train(ask(overwrite=True), stop_after(3, KeyboardInterrupt))
            checkpoint = ask().output / CHECKPOINT
            checkpoint.write_bytes(checkpoint.read_bytes()[:-1000] if damage is None else damage)
            with pytest.raises(TrainingError, match=r"checkpoint\.safetensors .*--overwrite"):
                train(ask())


def test_minutes_end_a_training(ask: Ask, train: Train) -> None:
    lines = train(ask(steps=10**6, minutes=1e-4))
    assert "ended       after the 0.0001 minutes asked for" in lines
    assert load_unet(ask().output).label_count == 4


def test_a_loss_that_is_no_number_ends_it(ask: Ask, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffood.training import request

    hot = dataclasses.replace(request.UNET_SIZES["tiny"], rate=1e30)
    monkeypatch.setitem(request.UNET_SIZES, "tiny", hot)
    with pytest.raises(TrainingError, match=r"The loss became \w+ at step \d+; try --precision fp32"):
        train(ask())


def test_images_that_cannot_be_used_are_set_aside(ask: Ask, train: Train, tiny_images: Path, tmp_path: Path) -> None:
    broken = tmp_path / "more" / "dots"
    broken.mkdir(parents=True)
    (broken / "text.png").write_text("not an image")
    (broken / "again.png").write_bytes((tiny_images / "dots" / "00.png").read_bytes())
    lines = train(ask(images=(str(tiny_images), str(tmp_path / "more")), steps=2))
    assert "images      48 of 1x8x8 (their own size)" in lines
    assert "repeated    1 files have the bytes of another and count once" in lines
    assert "1 repeated, 1 set aside" in (ask().output / CARD).read_text()


def test_too_few_images_are_refused_with_a_reason(ask: Ask, train: Train, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for index in range(3):
        Image.new("L", (8, 8), 40 * index).save(few / f"{index}.png")
    (few / "text.png").write_text("not an image")
    with pytest.raises(UsageError, match=r"3 images can be used and 1 cannot; .*at least 20.*'text\.png': The file"):
        train(ask(images=(str(few),)))


def look(step: int, held_out: float) -> HeldOutLoss:
    """A look at the held-out images that found this loss."""
    return HeldOutLoss(step=step, training=held_out, held_out=held_out, seconds=step)


def test_a_training_has_stalled_when_its_last_third_brought_nothing() -> None:
    for losses, stalled in [
        ([0.5, 0.4, 0.3, 0.2, 0.19, 0.18], False),  # falls
        ([0.5, 0.4, 0.3, 0.2, 0.2, 0.2], True),  # has stopped
        ([0.5, 0.4, 0.3, 0.2, 0.3, 0.1999], True),  # by less than a thousandth
        ([0.5, 0.4, 0.3, 0.2, 0.3, 0.1997], False),
        ([0.2, 0.3, 0.4, 0.5, 0.6, 0.7], True),  # rises
        ([0.2], False),
    ]:
        looks = tuple(look(100 * (index + 1), loss) for index, loss in enumerate(losses))
        assert has_stalled(looks) is stalled, losses


def test_the_rate_warms_up_and_falls_over_the_last_quarter() -> None:
    rates = {1: 0.005, 100: 0.5, 200: 1.0, 3000: 1.0, 3500: 0.5, 3900: 0.1, 4000: 0.0}  # by step
    assert {step: rate_at(step, 4000, 1.0) for step in rates} == pytest.approx(rates)
