"""What calibrate, evaluate, tune and verify requests have in common: an engine and a plan."""

from dataclasses import asdict, dataclass
from typing import Literal

from diffood.runtime.backends import BackendChoice
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.detector import DEFAULT_BATCH, Detector
from diffood.runtime.method.plan import Combination, Plan
from diffood.runtime.method.schedule import Convention, Sampler
from diffood.runtime.sessions.choice import (
    EngineCandidate,
    PrecisionChoice,
    list_candidates,
    no_engine_error,
    open_first,
)


@dataclass(frozen=True)
class EngineRequest:
    """The engine to run on, as asked for.

    Attributes:
        backend: "auto" takes the best backend of this machine.
        precision: "auto" takes the fastest one that passed `diffood verify`; None the calibrated one, or FP32 where
            nothing is calibrated.
        batch: Images that the engine works on at once; on a GPU, of every call.
        threads: Threads of the engine, 0 for all cores.

    """

    backend: BackendChoice = "auto"
    precision: PrecisionChoice | None = None
    batch: int = DEFAULT_BATCH
    threads: int = 0


@dataclass(frozen=True)
class PlanRequest:
    """A plan of a bundle, as asked for: by name (None: the bundle's default), with changed fields.

    The other attributes are those of `Plan`; None keeps the value of the named plan.
    """

    name: str | None = None
    schedule: Convention | None = None
    sampler: Sampler | None = None
    start_times: tuple[int, ...] | None = None
    stride: int | None = None
    repeats: int | None = None
    guidance: float | None = None
    space: Literal["logits", "features"] | None = None
    norm: Literal["l1", "l2"] | None = None
    compare: Literal["origin", "neighbour"] | None = None
    seed: int | None = None
    witnesses: tuple[str, ...] | None = None
    combine: Combination | None = None
    stages: tuple[int, ...] | None = None

    def plan_of(self, bundle: Bundle) -> Plan:
        """The plan this asks for. Raises UsageError for an unknown name and for values that do not fit together."""
        changes = asdict(self)
        return bundle.plan(changes.pop("name")).changed(changes)


def choose_engine(bundle: Bundle, plan: Plan, engine: EngineRequest) -> EngineCandidate:
    """The best way to run a plan of a bundle here, whatever the bundle is calibrated for.

    Raises UsageError, with every reason, where nothing that was asked for can run here.
    """
    candidates = list_candidates(bundle, None, engine.backend, engine.precision, engine.batch, plan)
    if not candidates.usable:
        raise no_engine_error(bundle, candidates)
    return candidates.usable[0]


def open_detector(bundle: Bundle, plan: Plan, engine: EngineRequest) -> Detector:
    """A detector for a plan, whatever the bundle is calibrated for. Raises as `open_first` does."""
    candidates = list_candidates(bundle, None, engine.backend, engine.precision, engine.batch, plan)

    def load(candidate: EngineCandidate) -> Detector:
        return Detector.load(
            bundle,
            plan,
            backend=candidate.backend,
            precision=candidate.precision,
            batch=engine.batch,
            threads=engine.threads,
            why=candidate.why,
        )

    return open_first(bundle, candidates, load, choosing="auto" in (engine.backend, engine.precision))
