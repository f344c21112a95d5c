"""Plans: what is refused and by which name, what a plan costs, and how one is changed."""

import numpy as np
import pytest

from diffood.errors import UsageError
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.method.plan import CLASSIFIER, DEFAULT, FAST, MAX_REPEATS, MAX_STARTS, PLAIN, REFERENCE, Plan


def test_a_value_that_does_not_fit_is_refused_by_name(subtests: pytest.Subtests) -> None:
    for name, value in [
        ("start_times", (200, 100)),
        ("start_times", (100, 100)),
        ("start_times", ("early",)),
        ("start_times", (1.5,)),
        ("start_times", tuple(range(1, MAX_STARTS + 2))),
        ("stride", 0),
        ("stride", -1),
        ("stride", 2.5),
        ("repeats", -1),
        ("repeats", MAX_REPEATS + 1),
        ("guidance", -0.5),
        ("guidance", 101),
        ("guidance", float("nan")),
        ("guidance", float("inf")),
        ("seed", -1),
        ("seed", 2**63),
        ("schedule", "cosine"),
        ("sampler", "euler"),
        ("space", "pixels"),
        ("norm", "l3"),
        ("compare", "local"),
        ("witnesses", ()),
        ("witnesses", ("jump", "jump")),
        ("witnesses", ("colour",)),
        ("stages", (-1,)),
    ]:
        with subtests.test(name=name, value=value):
            with pytest.raises(UsageError, match=f"The plan is invalid: {name}") as caught:
                DEFAULT.changed({name: value})
            assert "got " in str(caught.value)
            assert "\n" not in str(caught.value)


def test_the_largest_and_smallest_values_fit(subtests: pytest.Subtests) -> None:
    for name, value in [
        ("start_times", tuple(range(1, MAX_STARTS + 1))),
        ("stride", 1),
        ("repeats", 1),
        ("repeats", MAX_REPEATS),
        ("guidance", 0.0),
        ("guidance", 100.0),
        ("seed", 0),
        ("seed", 2**63 - 1),
        ("stages", (0, DEFAULT.repeats - 1)),
    ]:
        with subtests.test(name=name, value=value):
            assert getattr(DEFAULT.changed({name: value}), name) == value


def test_stages_ascend_and_end_before_the_last_repeat(subtests: pytest.Subtests) -> None:
    four = DEFAULT.changed({"repeats": 4})
    for stages in [(4,), (2, 1), (1, 1), (1, 5)]:
        message = rf"stages must ascend without repeating and end before the last of 4 repeats, got \[{stages[0]}"
        with subtests.test(stages=stages), pytest.raises(UsageError, match=message):
            four.changed({"stages": stages})
    with pytest.raises(UsageError, match="stage 0 denoises nothing, and jump, reconstruction cannot be measured there"):
        four.changed({"witnesses": ("jump", "reconstruction"), "stages": (0, 1)})


def test_fewer_repeats_drop_the_stages_beyond_them_and_one_witness_drops_all() -> None:
    staged = DEFAULT.changed({"repeats": 4, "stages": (0, 1, 3)})
    assert staged.changed({"repeats": 3}).stages == (0, 1)
    assert staged.changed({"repeats": 1}).stages == (0,)
    assert staged.changed({"repeats": 8}).stages == (0, 1, 3)
    assert staged.changed({"witnesses": ("jump", "energy")}).stages == (0, 1, 3)
    assert staged.changed({"witnesses": ("energy",)}).stages == ()
    assert staged.changed({"witnesses": ("energy",), "stages": (1,)}).stages == (1,)


def test_a_fit_is_needed_by_several_witnesses_a_bank_or_stages() -> None:
    one = PLAIN.changed({"repeats": 2})
    assert not one.fused
    for changes in ({"witnesses": ("jump", "energy")}, {"witnesses": ("margin",)}, {"stages": (1,)}):
        assert one.changed(changes).fused, changes
    assert DEFAULT.plain == PLAIN


def test_the_shipped_plans_are_those_of_the_papers_readme_and_of_the_zoos_manifest(zoo_bundle: Bundle) -> None:
    """A change here changes what bundles exported tomorrow decide."""
    plans = {"default": DEFAULT, "fast": FAST, "plain": PLAIN, "reference": REFERENCE}
    assert zoo_bundle.manifest.plans == plans


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="The plan is invalid: eta"):
        DEFAULT.changed({"eta": 0.5})


def test_a_start_time_beyond_the_schedule_is_a_usage_error(small_bundle: Bundle, subtests: pytest.Subtests) -> None:
    for start_times in [(1000,), (10**9,), (120, 1000)]:
        with subtests.test(start_times=start_times), pytest.raises(UsageError, match=str(start_times[-1])):
            small_bundle.tables(DEFAULT.changed({"start_times": start_times}))


def test_a_start_time_below_the_schedule_is_a_usage_error(small_bundle: Bundle, subtests: pytest.Subtests) -> None:
    for start_times in [(0,), (-120, 120)]:
        with subtests.test(start_times=start_times), pytest.raises(UsageError, match=str(start_times[0])):
            small_bundle.tables(DEFAULT.changed({"start_times": start_times}))


def test_changed_leaves_out_what_is_none_and_the_plan_itself() -> None:
    changed = DEFAULT.changed({"stride": 60, "repeats": None, "norm": "l2"})
    assert (changed.stride, changed.repeats, changed.norm) == (60, DEFAULT.repeats, "l2")
    assert changed != DEFAULT
    assert DEFAULT.changed({}) == DEFAULT.changed({"stride": None}) == DEFAULT
    assert DEFAULT.changed({"guidance": 0.0}).guidance == 0


def test_a_plan_survives_its_json() -> None:
    for plan in (DEFAULT, REFERENCE):
        assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_the_papers_plan_costs_36_rows_twice_for_each_of_4_repeats(small_bundle: Bundle) -> None:
    tables = small_bundle.tables(REFERENCE)
    assert [len(table) for table in tables] == [6, 12, 18]
    assert REFERENCE.evaluations(tables) == 36 * 2 * 4 == 288


def test_evaluations_by_hand(small_bundle: Bundle, subtests: pytest.Subtests) -> None:
    for overrides, expected in [
        ({"start_times": (480,), "stride": 120, "repeats": 2, "guidance": 2.0}, 16),
        ({"start_times": (480,), "stride": 240, "repeats": 2, "guidance": 2.0}, 8),
        ({"start_times": (360,), "stride": 360, "repeats": 2, "guidance": 2.0}, 4),
        ({"start_times": (360,), "stride": 360, "repeats": 2, "guidance": 0.0}, 2),
        ({"start_times": (360,), "stride": 360, "repeats": 1, "guidance": 0.0}, 1),
    ]:
        with subtests.test(overrides=overrides, expected=expected):
            plan = DEFAULT.changed(overrides)
            assert plan.evaluations(small_bundle.tables(plan)) == expected


def test_a_plan_denoises_or_judges_by_the_classifier_alone() -> None:
    assert not CLASSIFIER.denoises
    assert PLAIN.denoises
    assert CLASSIFIER.evaluations(CLASSIFIER.tables(np.empty(0), "epsilon")) == 0
    assert CLASSIFIER.plain.witnesses == ("energy",)
    together = r"start times and repeats go together, or neither is given: got"
    for plan, changes, problem in (
        (PLAIN, {"start_times": ()}, rf"{together} \[\] and 2 repeats"),
        (PLAIN, {"repeats": 0}, rf"{together} \[360\] and 0 repeats"),
        (CLASSIFIER, {"repeats": 1}, rf"{together} \[\] and 1 repeats"),
        (CLASSIFIER, {"witnesses": ("inside", "reconstruction")}, "not all of inside, reconstruction can be measured"),
        (CLASSIFIER, {"stages": (0,)}, "end before the last of 0 repeats"),
        (CLASSIFIER, {"witnesses": ("snapshot",)}, "not all of snapshot can be measured"),
        (
            PLAIN,
            {"witnesses": ("snapshot",)},
            r"snapshot looks into .* times \[360\], stride 360 and guidance 2",
        ),
        (PLAIN, {"witnesses": ("snapshot",), "guidance": 0.0, "stride": 180}, "stride 180 and guidance 0"),
    ):
        with pytest.raises(UsageError, match=problem):
            plan.changed(changes)
