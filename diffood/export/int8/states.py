"""What the FP32 loop feeds the graphs: inputs recorded while real images are denoised. INT8 is calibrated on them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffood.runtime.backends import Backend
from diffood.runtime.bundle.bundle import Bundle, Precision, Role
from diffood.runtime.detector import Detector
from diffood.runtime.method.plan import PLAIN, Plan
from diffood.runtime.method.scoring import Array
from diffood.runtime.method.witnesses.definition import Evidence
from diffood.runtime.sessions import Classified, Session, StepInputs

Feeds = Mapping[str, npt.NDArray[np.generic]]

FEWEST_TIMES = 3  # of a trajectory that is recorded


@dataclass(frozen=True)
class States:
    """Inputs that a graph was fed, N rows of them.

    Attributes:
        inputs: Values [N, ...] by name.
        groups: [N], the time of a step, or "images" and "denoised".
    """

    inputs: Feeds
    groups: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.groups)

    def take(self, rows: npt.NDArray[np.integer]) -> "States":
        """These rows, in this order."""
        return States({name: value[rows] for name, value in self.inputs.items()}, self.groups[rows])

    def first(self, count: int) -> "States":
        """The first `count` rows of every group."""
        kept = [np.flatnonzero(self.groups == group)[:count] for group in np.unique(self.groups)]
        return self.take(np.sort(np.concatenate(kept)))

    def split(self, rows: int) -> list["States"]:
        """Batches of at most `rows` rows."""
        return [self.take(np.arange(start, min(start + rows, len(self)))) for start in range(0, len(self), rows)]


class RecordingSession:
    """A session that keeps what the loop feeds its step graph, and passes everything on."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lanes: list[Array] = []
        self._steps: list[tuple[StepInputs, npt.NDArray[np.bool_]]] = []

    @property
    def backend(self) -> Backend:
        """See Session.backend."""
        return self._session.backend

    @property
    def precision(self) -> Precision:
        """See Session.precision."""
        return self._session.precision

    @property
    def engine_sha256(self) -> str | None:
        """See Session.engine_sha256."""
        return self._session.engine_sha256

    @property
    def batch(self) -> int:
        """See Session.batch."""
        return self._session.batch

    @property
    def threads(self) -> int:
        """See Session.threads."""
        return self._session.threads

    def classify(self, x: Array) -> Classified:
        """See Session.classify."""
        return self._session.classify(x)

    def encode(self, x: Array) -> Array:
        """See Session.encode."""
        return self._session.encode(x)

    def decode(self, z: Array) -> Array:
        """See Session.decode."""
        return self._session.decode(z)

    def put(self, lane: int, x: Array) -> None:
        """See Session.put."""
        self._session.put(lane, x)

    def step(self, inputs: StepInputs) -> None:
        """Keep the lanes that are at work, then advance."""
        working = inputs.moving
        self._lanes.extend(self._session.take(int(lane)) for lane in np.flatnonzero(working))
        self._steps.append((inputs, working))
        self._session.step(inputs)

    def take(self, lane: int) -> Array:
        """See Session.take."""
        return self._session.take(lane)

    def synchronize(self) -> None:
        """See Session.synchronize."""
        self._session.synchronize()

    def states(self) -> States:
        """All that was fed so far."""
        names = ("time", "label", "coefficients", "guidance")
        inputs = {
            name: np.concatenate([getattr(step, name)[working] for step, working in self._steps]) for name in names
        }
        return States({"x": np.stack(self._lanes), **inputs}, np.array([f"t = {time:g}" for time in inputs["time"]]))


def record_states(bundle: Bundle, images: Array) -> dict[Role, States]:
    """Denoise images with the default plan and keep what the classifier and the steps are fed.

    From the plan's start times down in FEWEST_TIMES steps or more: another plan asks at other times, and what rounds
    well at one may not at another. With the labels the classifier gave. step_plain is fed by the same plan without
    guidance; classify by the images and by what they were denoised to.

    Args:
        bundle: With FP32 graphs.
        images: float32 [N, C, H, W] in [-1, 1].

    Raises:
        UsageError: The images do not fit.
    """
    plan = bundle.plan()
    if not plan.denoises:
        return {"classify": States({"x": images}, np.repeat(["images"], len(images)))}
    stride = min(plan.stride, max(1, max(plan.start_times) // FEWEST_TIMES))
    states: dict[Role, States] = {}
    for entry in bundle.manifest.graphs:
        if entry.precision == "fp32" and entry.role in ("step_plain", "step_guided"):
            guidance = (plan.guidance or PLAIN.guidance) if entry.role == "step_guided" else 0.0
            asked = plan.changed({"guidance": guidance, "stride": stride})
            states[entry.role], results = _run(bundle, asked, images)
    denoised = np.concatenate([result.denoised.reshape(-1, *images.shape[1:]) for result in results])
    groups = np.repeat(["images", "denoised"], [len(images), len(denoised)])
    states["classify"] = States({"x": np.concatenate([images, denoised])}, groups)
    return states


def _run(bundle: Bundle, plan: Plan, images: Array) -> tuple[States, list[Evidence]]:
    recorder = RecordingSession(Detector.load(bundle, plan).session)
    results = [result for _, result in Detector(bundle, plan, recorder).observe(enumerate(images))]
    return recorder.states(), results
