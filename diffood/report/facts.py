"""What a report says about the models, the plan and the witnesses. Draws and scores nothing."""

from dataclasses import dataclass

from diffood.runtime.bundle.bundle import Manifest
from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.detector import Detector
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.witnesses.registry import WITNESSES

CLASSES_NAMED = 12


@dataclass(frozen=True)
class Fact:
    """One line of what was fitted."""

    term: str
    text: str


@dataclass(frozen=True)
class WitnessFact:
    """A witness of the plan.

    Attributes:
        name: As in plans.
        meaning: What it measures.
        weight: Share in the combined score.
        mean: In-distribution; None where nothing was fitted.
        deviation: Standard deviation in-distribution; None where nothing was fitted.
    """

    name: str
    meaning: str
    weight: float
    mean: float | None
    deviation: float | None


def witness_facts(calibration: Calibration) -> tuple[WitnessFact, ...]:
    """The plan's witnesses, with what was fitted for each."""
    names = calibration.fingerprint.plan.witnesses
    if not calibration.fusion:
        return tuple(WitnessFact(name, WITNESSES[name].meaning, 1.0, None, None) for name in names)
    fitted = {witness.name: witness for witness in calibration.fusion.witnesses}
    return tuple(
        WitnessFact(name, WITNESSES[name].meaning, fitted[name].weight, fitted[name].center, fitted[name].scale)
        for name in names
    )


def bundle_facts(detector: Detector, calibration: Calibration) -> tuple[Fact, ...]:
    """What the calibration is for, in words for a reader who does not know the paper."""
    manifest, plan, session = detector.bundle.manifest, detector.plan, detector.session
    fusion, stages = calibration.fusion, " or ".join(map(str, plan.stages))
    engine = f", engine {session.engine_sha256[:12]}" if session.engine_sha256 else ""
    fitted = f"; {fusion.n} others to fit how the witnesses are combined" if fusion else ""
    aside = f"; {calibration.set_aside} files could not be used" if calibration.set_aside else ""
    return (
        *_models(manifest, len(detector.bundle.alpha_bar)),
        Fact("plan", _plan(plan)),
        Fact(
            "cost",
            "no evaluation of a diffusion model"
            if not plan.denoises
            else f"{detector.evaluations} evaluations of the diffusion model per image"
            f"{f'; fewer where the verdict is clear after noise draw {stages}' if plan.stages else ''}",
        ),
        Fact("engine", f"{session.precision} on {session.backend}{engine}"),
        Fact("calibrated on", f"{calibration.n} images for the threshold{fitted}{aside}"),
        Fact("made with", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
        Fact("fingerprint", calibration.fingerprint.short),
    )


def _models(manifest: Manifest, steps: int) -> list[Fact]:
    classifier, unet, image, latent = manifest.classifier, manifest.unet, manifest.image, manifest.latent
    names = manifest.class_names
    more = f" and {len(names) - CLASSES_NAMED} more" if len(names) > CLASSES_NAMED else ""
    space = f"; it denoises latents of {latent.channels} x {latent.height} x {latent.width}" if latent else ""
    return [
        Fact("classifier", f"{classifier.origin}, {classifier.parameters:,} parameters"),
        Fact("classes", f"{len(names)}: {', '.join(names[:CLASSES_NAMED])}{more}"),
        Fact(
            "diffusion model",
            f"{unet.origin}, {unet.parameters:,} parameters, predicts {unet.prediction}; "
            f"noise schedule: {unet.schedule_origin}, {steps} steps{space}"
            if unet
            else "none: only what the classifier says of the image itself is judged",
        ),
        *([Fact("autoencoder", f"{latent.origin}, {latent.parameters:,} parameters")] if latent else []),
        Fact("images", f"{image.width} x {image.height} pixels, {'grey' if image.channels == 1 else 'RGB'}"),
    ]


def _plan(plan: Plan) -> str:
    if not plan.denoises:
        return "the classifier's outputs and features for the image as it is"
    guidance = f"guided by the predicted class ({plan.guidance:g})" if plan.guidance > 0 else "without guidance"
    return (
        f"noised up to step {', '.join(map(str, plan.start_times))}, denoised {plan.stride} steps at a time, "
        f"{plan.repeats} noise draws per image, {guidance}; {plan.sampler} on the {plan.schedule} schedule; "
        f"the classifier's {plan.space} are compared by {plan.norm}"
    )
