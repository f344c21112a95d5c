"""Says which engine serving chooses for a calibrated bundle on this machine, which it does not, and why. Runs nothing.

It asks what `Detector.open` asks: `list_candidates` for the order, `refusal` for each.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from diffood.runtime.backends import Backend
from diffood.runtime.bundle.bundle import Bundle, Precision
from diffood.runtime.bundle.calibration import Calibration, Fingerprint, fingerprint_of
from diffood.runtime.bundle.parity import load_parity, refusal
from diffood.runtime.detector import DEFAULT_BATCH
from diffood.runtime.sessions.choice import EngineCandidate, list_candidates


@dataclass(frozen=True)
class ServedEngines:
    """What serving chooses.

    Attributes:
        by_default: Without --precision; "" where nothing may serve.
        automatic: With --precision auto; "" where nothing may serve.
        why: Why that is chosen with --precision auto.
        refused: Engines that run here and must not serve, each with the reason.
    """

    by_default: str
    automatic: str
    why: str
    refused: dict[str, str]


def list_served(
    bundle: Bundle,
    calibration: Calibration,
    opened: Mapping[tuple[Backend, Precision], Fingerprint],
    batch: int = DEFAULT_BATCH,
) -> ServedEngines:
    """What serving chooses on this machine.

    Args:
        bundle: The bundle.
        calibration: Its calibration.
        opened: Fingerprints of the engines that were opened; of others, those are taken that are recorded.
        batch: Images that the engine works on at once; on a GPU, of every call.
    """
    judged = load_parity(bundle)
    variants = [found.variant for found in judged.records if found.reference == calibration.fingerprint]
    known = {(found.backend, found.precision): found for found in (*variants, calibration.fingerprint)}
    known.update(opened)
    plan = calibration.fingerprint.plan
    fastest = list_candidates(bundle, calibration, "auto", "auto", batch, plan).usable
    ordinary = list_candidates(bundle, calibration, "auto", None, batch, plan).usable

    def reason(found: EngineCandidate) -> str:
        old = known.get((found.backend, found.precision))
        if old is None:
            return "it was never verified"
        now = fingerprint_of(bundle, plan, found.precision, found.backend, old.engine_sha256, old.fusion_sha256)
        return refusal(judged, calibration, now)

    refused = {_name(found): why for found in fastest if (why := reason(found))}
    ordinary = tuple(found for found in ordinary if _name(found) not in refused)
    fastest = tuple(found for found in fastest if _name(found) not in refused)
    return ServedEngines(
        by_default=_name(ordinary[0]) if ordinary else "",
        automatic=_name(fastest[0]) if fastest else "",
        why=fastest[0].why if fastest else "",
        refused=refused,
    )


def _name(candidate: EngineCandidate) -> str:
    return f"{candidate.precision} on {candidate.backend}"
