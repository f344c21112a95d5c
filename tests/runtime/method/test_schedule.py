"""Laws of schedules: a perfect UNet is led home by every table, DDIM's rows are diffusers', betas too."""

import itertools
import math
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffood.errors import UsageError
from diffood.runtime.method.plan import DEFAULT, REFERENCE, Plan
from diffood.runtime.method.schedule import (
    NO_REGISTER,
    Convention,
    Grid,
    Prediction,
    Sampler,
    StepTable,
    build_table,
    ddim_coefficients,
)

FloatArray = npt.NDArray[np.float64]
Model = Callable[[FloatArray, int], FloatArray]  # (x, row of the table) -> the UNet's output

CONVENTIONS, SAMPLERS, PREDICTIONS = get_args(Convention), get_args(Sampler), get_args(Prediction)
KINDS = ("linear", "scaled_linear", "squaredcos_cap_v2")
HALF_ULP = 2.0**-24  # how far rounding to float32 moves a coefficient, relative


def levels(kind: str, steps: int = 1000) -> FloatArray:
    """alpha_bar of the three kinds, written here from their papers, with diffusers' default ends."""
    if kind == "linear":
        betas = np.linspace(1e-4, 0.02, steps)
    elif kind == "scaled_linear":
        betas = np.linspace(1e-4**0.5, 0.02**0.5, steps) ** 2
    else:
        cosine = [math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(steps + 1)]
        betas = np.array([min(1 - after / before, 0.999) for before, after in itertools.pairwise(cosine)])
    return np.cumprod(1 - betas)


def walk(table: StepTable, x: FloatArray, model: Model) -> FloatArray:
    """Run a table as its docstring says, in float64: only the table itself is rounded."""
    registers = np.zeros((table.weights.shape[1], *x.shape))
    for row in range(len(table)):
        p_x, p_m, c_x, c_eps = table.coefficients[row].astype(np.float64)
        eps = p_x * x + p_m * model(x, row)
        x = c_x * x + c_eps * eps + np.tensordot(table.weights[row].astype(np.float64), registers, axes=1)
        if table.store[row] != NO_REGISTER:
            registers[table.store[row]] = eps
    return x


def level_asked(grid: Grid, time: float) -> float:
    """alpha_bar that belongs to a time a UNet is asked at, by the two conventions and not by the table."""
    if grid.convention == "reference":
        return float(grid.alpha_bar[math.floor(time + 1)])
    return float(grid.alpha_bar[math.floor(time)])  # at the end too: an image asked of keeps index 0's noise


def oracle(grid: Grid, table: StepTable, clean: FloatArray) -> Model:
    """A UNet that knows the clean image: its eps is what separates x from it, wherever x is."""

    def model(x: FloatArray, row: int) -> FloatArray:
        level = level_asked(grid, float(table.times[row]))
        return np.asarray((x - math.sqrt(level) * clean) / math.sqrt(1 - level))

    return model


def rounding(table: StepTable, grid: Grid, start: int) -> float:
    """How far float32 coefficients may lead a walk from home, for images and noise of size one to four.

    Each row moves x by at most half an ulp of the terms it adds: |weights| sum to 160/24 < 7, x and eps are at most
    4·2. What is wrong at a level grows by 1 / sqrt(alpha_bar) on its way to the end. An oracle answers an error of x by
    1 / sqrt(1 - alpha_bar) of it: a DDIM step takes that back, multistep rows overshoot (2.4 times this bound was seen
    in 2,500 random tables, 8 is allowed), and a stage that is asked at the reference's end itself meets alpha_bar[0].
    """
    bound = len(table) * HALF_ULP * 7 * 8 / math.sqrt(grid.alpha_bar[start])
    if not table.weights.any():
        return bound
    at_the_end = bool((table.times <= (-1 if grid.convention == "reference" else 0)).any())
    return 8 * bound / (math.sqrt(1 - grid.alpha_bar[0]) if at_the_end else 1)


@st.composite
def grids(draw: st.DrawFn, convention: Convention) -> tuple[Grid, int, int]:
    """A grid of random betas or of a known kind, and a start and stride on it that leave some image to find."""
    if draw(st.booleans()):
        alpha_bar = levels(draw(st.sampled_from(KINDS)), draw(st.integers(10, 1000)))
    else:
        betas = draw(hnp.arrays(np.float64, st.integers(2, 60), elements=st.floats(1e-4, 0.2)))
        alpha_bar = np.cumprod(1 - betas)
    start = draw(st.integers(1, len(alpha_bar) - 1))
    assume(alpha_bar[start] > 1e-3)  # below it a float32 image is lost in its noise
    stride = draw(st.integers(max(1, start // 60), len(alpha_bar) - 1))
    return Grid(alpha_bar, convention), start, stride


images = hnp.arrays(np.float64, (6,), elements=st.floats(-1, 1, width=32))
noises = hnp.arrays(np.float64, (6,), elements=st.floats(-4, 4, width=32))


@given(st.data(), st.sampled_from(CONVENTIONS), st.sampled_from(SAMPLERS), images, noises)
def test_a_perfect_unet_is_led_home(
    data: st.DataObject, convention: Convention, sampler: Sampler, clean: FloatArray, noise: FloatArray
) -> None:
    grid, start, stride = data.draw(grids(convention))
    table = build_table(grid, sampler, "epsilon", start, stride)
    x = table.noise_scale[0] * clean + table.noise_scale[1] * noise
    home = clean
    if convention == "reference":  # ends where its "original" is: at the first noise level
        home = math.sqrt(grid.alpha_bar[0]) * clean + math.sqrt(1 - grid.alpha_bar[0]) * noise
    scale = grid.origin_scale()
    np.testing.assert_allclose(scale[0] * clean + scale[1] * noise, home, atol=1e-15)
    tolerance = rounding(table, grid, start)
    np.testing.assert_allclose(walk(table, x, oracle(grid, table, clean)), home, rtol=0, atol=tolerance)


def test_a_perfect_unet_is_led_home_within_1e_5() -> None:
    """The plans people run, against a number: float32 coefficients cost no more than float32 images do."""
    plans = ((120, 20), (360, 20), (480, 120), (333, 60))
    for kind, convention, sampler, (start, stride) in itertools.product(KINDS, CONVENTIONS, SAMPLERS, plans):
        grid = Grid(levels(kind), convention)
        generator = np.random.default_rng(start)
        clean, noise = generator.uniform(-1, 1, 50), generator.standard_normal(50)
        table = build_table(grid, sampler, "epsilon", start, stride)
        x = table.noise_scale[0] * clean + table.noise_scale[1] * noise
        scale = grid.origin_scale()
        found, home = walk(table, x, oracle(grid, table, clean)), scale[0] * clean + scale[1] * noise
        case = f"{kind}, {convention}, {sampler}, {start} by {stride}"
        np.testing.assert_allclose(found, home, rtol=0, atol=1e-5, err_msg=case)


def test_what_a_unet_predicts_does_not_change_the_way() -> None:
    """The same wrong eps told as eps, as the clean image or as v: nothing but rounding differs."""
    x = np.random.default_rng(1).standard_normal(50)
    plans = ((200, 20), (120, 120), (240, 120))
    for prediction, convention, sampler, (start, stride) in itertools.product(
        PREDICTIONS, CONVENTIONS, SAMPLERS, plans
    ):
        grid = Grid(levels("linear"), convention)
        told = build_table(grid, sampler, prediction, start, stride)
        plain = build_table(grid, sampler, "epsilon", start, stride)
        case = f"{prediction}, {convention}, {sampler}, {start} by {stride}"
        np.testing.assert_array_equal(told.times, plain.times, err_msg=case)
        wrong = wrong_model(plain)
        found = walk(told, x, told_as(prediction, grid, told, wrong))
        np.testing.assert_allclose(found, walk(plain, x, wrong), rtol=0, atol=1e-5, err_msg=case)


def wrong_model(table: StepTable) -> Model:
    """An eps that no image explains, other at every time."""
    return lambda x, row: np.asarray(np.tanh(x) + 1e-3 * float(table.times[row]))


def told_as(prediction: Prediction, grid: Grid, table: StepTable, model: Model) -> Model:
    """The same eps, given as a UNet of that prediction gives it."""

    def told(x: FloatArray, row: int) -> FloatArray:
        level, eps = level_asked(grid, float(table.times[row])), model(x, row)
        clean = (x - math.sqrt(1 - level) * eps) / math.sqrt(level)
        outputs = {
            "epsilon": eps,
            "sample": clean,
            "v_prediction": math.sqrt(level) * eps - math.sqrt(1 - level) * clean,
        }
        return np.asarray(outputs[prediction])

    return told


def test_textbook_ddim_rows_are_the_steps_of_diffusers(subtests: pytest.Subtests) -> None:
    for prediction in PREDICTIONS:
        with subtests.test(prediction=prediction):
            plans = ((360, 20), (480, 40), (500, 125), (250, 250), (999, 100))
            for kind, (start, stride) in itertools.product(KINDS, plans):
                assert_rows_of_diffusers(kind, prediction, start, stride)


def assert_rows_of_diffusers(kind: str, prediction: Prediction, start: int, stride: int) -> None:
    """Every row of a table moves an image as a step of DDIMScheduler does."""
    diffusers = pytest.importorskip("diffusers")
    torch = pytest.importorskip("torch")
    scheduler = diffusers.DDIMScheduler(
        beta_schedule=kind, prediction_type=prediction, set_alpha_to_one=True, clip_sample=False
    )
    # diffusers cumulates float32 betas in float32; the same formula from our table is what is compared.
    scheduler.alphas_cumprod = torch.from_numpy(levels(kind))
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    table = build_table(Grid(levels(kind), "textbook"), "ddim", prediction, start, stride)
    generator = np.random.default_rng(7)
    x, output = generator.standard_normal((2, 40))
    for row, time in enumerate(table.times.astype(int).tolist()):
        # diffusers steps by num_train_timesteps // num_inference_steps and takes the final alpha only for times below
        # zero, so that a step to time 0 itself ends on alpha_bar[0] there. Ours ends on the clean image at 0: the last
        # row is compared with one inference step, whose previous time, time - 1000, is negative.
        scheduler.num_inference_steps = 1 if time <= stride else 1000 // stride
        expected = scheduler.step(torch.from_numpy(output), time, torch.from_numpy(x), eta=0.0).prev_sample.numpy()
        p_x, p_m, c_x, c_eps = table.coefficients[row].astype(np.float64)
        # Every coefficient is rounded once. What their rounding moves, with a factor of two for their products:
        terms = abs(c_x * x) + abs(c_eps) * (abs(p_x * x) + abs(p_m * output))
        found = c_x * x + c_eps * (p_x * x + p_m * output)
        close = abs(found - expected) <= 2 * 2 * HALF_ULP * terms + 1e-12
        assert close.all(), f"{kind}, {start} by {stride}: row {row}, time {time}"


def test_betas_are_those_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    from diffood.export.sources.unets.scheduler import betas

    schedulers = (diffusers.DDPMScheduler, diffusers.DDIMScheduler, diffusers.PNDMScheduler)
    configs: list[dict[str, Any]] = [
        *({"beta_schedule": kind} for kind in KINDS),
        {"beta_schedule": "linear", "beta_start": 0.0015, "beta_end": 0.0195},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    ]
    for scheduler, config, steps in itertools.product(schedulers, configs, (10, 1000, 4000)):
        made = scheduler(num_train_timesteps=steps, **config)
        found, case = betas(dict(made.config)), f"{scheduler.__name__}, {config}, {steps} steps"
        # Its betas are float32 and linear in float32: an ulp of the largest, not of each.
        atol = 2 * HALF_ULP * found.max()
        np.testing.assert_allclose(found, made.betas.double().numpy(), rtol=1e-6, atol=atol, err_msg=case)
        alpha_bar = made.alphas_cumprod.double().numpy()
        np.testing.assert_allclose(np.cumprod(1 - found), alpha_bar, rtol=2e-4, atol=1e-12, err_msg=case)


def test_trained_betas_are_taken_as_they_are() -> None:
    diffusers = pytest.importorskip("diffusers")
    from diffood.export.sources.unets.scheduler import betas

    trained = np.linspace(0.01, 0.3, 20).tolist()
    made = diffusers.DDPMScheduler(num_train_timesteps=20, trained_betas=trained)
    np.testing.assert_array_equal(betas(dict(made.config)), trained)


def test_rows_of_the_papers_start_times() -> None:
    for convention, (start, rows) in itertools.product(CONVENTIONS, ((120, 6), (240, 12), (360, 18))):
        grid = Grid(levels("linear"), convention)
        lengths = [len(build_table(grid, sampler, "epsilon", start, 20)) for sampler in ("ddim", "pndm2", "pndm4")]
        assert lengths == [rows, rows + 1, rows + 3 * 3], f"{convention}, {start}"


def test_reference_plan_costs_what_the_papers_code_costs() -> None:
    tables = REFERENCE.tables(levels("linear"), "epsilon")
    assert sum(map(len, tables)) == 36
    assert REFERENCE.evaluations(tables) == 288
    assert DEFAULT.evaluations(DEFAULT.tables(levels("linear"), "epsilon")) <= 288 / 12


def test_unet_is_asked_at_the_conventions_times(subtests: pytest.Subtests) -> None:
    for convention, times in [("textbook", [120, 100, 80, 60, 40, 20]), ("reference", [119, 99, 79, 59, 39, 19])]:
        with subtests.test(convention=convention, times=times):
            grid = Grid(levels("linear"), convention)
            table = build_table(grid, "ddim", "epsilon", 120, 20)
            assert table.times.tolist() == times
            assert table.noise_scale == pytest.approx(
                (math.sqrt(grid.alpha_bar[120]), math.sqrt(1 - grid.alpha_bar[120]))
            )


@given(grids("textbook"), st.sampled_from(SAMPLERS), st.sampled_from(PREDICTIONS))
def test_tables_are_finite_and_shaped_as_promised(
    drawn: tuple[Grid, int, int], sampler: Sampler, prediction: Prediction
) -> None:
    grid, start, stride = drawn
    table = build_table(grid, sampler, prediction, start, stride)
    rows, registers = len(table), {"ddim": 0, "pndm2": 1, "pndm4": 5}[sampler]
    shapes = {"times": (rows,), "coefficients": (rows, 4), "weights": (rows, registers), "store": (rows,)}
    for name, shape in shapes.items():
        values = getattr(table, name)
        assert values.shape == shape
        assert np.isfinite(values).all()
    assert (np.diff(table.times) <= 0).all()
    assert (table.store < max(registers, 1)).all()
    # A register is read only after it was written: it may hold another trajectory's leavings.
    written: set[int] = set()
    for weights, store in zip(table.weights, table.store, strict=True):
        assert set(np.flatnonzero(weights).tolist()) <= written
        written |= {int(store)} - {NO_REGISTER}


@given(st.floats(1e-6, 1, exclude_max=True), st.floats(1e-6, 1), st.floats(1e-6, 1))
def test_ddim_steps_compose_and_keep_still(a: float, b: float, c: float) -> None:
    """With one eps, two steps are the step across both, and a step to the same level is none."""
    assert ddim_coefficients(a, a) == pytest.approx((1, 0), abs=1e-12)
    first, second, across = ddim_coefficients(a, b), ddim_coefficients(b, c), ddim_coefficients(a, c)
    assert first[0] * second[0] == pytest.approx(across[0], rel=1e-9)
    assert second[0] * first[1] + second[1] == pytest.approx(across[1], rel=1e-9, abs=1e-9 * (1 + across[0]))


def test_a_start_or_stride_outside_the_schedule_is_refused() -> None:
    outside = {(0, 20): "Start time 0", (-1, 20): "Start time -1", (1000, 20): "Start time 1000", (9, 0): "Stride 0"}
    for convention, ((start, stride), named) in itertools.product(CONVENTIONS, outside.items()):
        with pytest.raises(UsageError, match=rf"{named} is outside 1\.\.999"):
            build_table(Grid(levels("linear"), convention), "ddim", "epsilon", start, stride)


def test_a_plan_outside_the_schedule_is_refused() -> None:
    for starts, stride in (((0, 120), 20), ((120, 1000), 20), ((120,), 1000)):
        plan = Plan(start_times=starts, stride=stride, repeats=1, guidance=0.0)
        with pytest.raises(UsageError, match=r"is outside 1\.\.999"):
            plan.tables(levels("linear"), "epsilon")


def test_the_ends_of_the_schedule_can_be_started_from() -> None:
    for convention, sampler, start in itertools.product(CONVENTIONS, SAMPLERS, (1, 2, 999)):
        table = build_table(Grid(levels("linear"), convention), sampler, "epsilon", start, 999)
        assert np.isfinite(table.coefficients).all(), f"{convention}, {sampler}, {start}"
        assert table.times[0] == (start if convention == "textbook" else start - 1), f"{convention}, {sampler}, {start}"
