"""What a report says in words of the models, the plan and the witnesses. Draws and scores nothing."""

from dataclasses import dataclass

from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.detector import Detector
from diffood.runtime.method.witnesses.registry import WITNESSES

CLASSES_NAMED = 12


@dataclass(frozen=True)
class Fact:
    """One line of what was fitted."""

    term: str
    text: str


@dataclass(frozen=True)
class WitnessFact:
    """A witness of the plan; usual and deviation: its mean and standard deviation in-distribution, None unfitted."""

    name: str
    meaning: str
    weight: float
    usual: float | None
    deviation: float | None


def witness_facts(calibration: Calibration) -> tuple[WitnessFact, ...]:
    """The plan's witnesses, with what was fitted of each."""
    names = calibration.fingerprint.plan.witnesses
    fitted = {witness.name: witness for witness in calibration.fusion.witnesses} if calibration.fusion else {}
    return tuple(
        WitnessFact(
            name,
            WITNESSES[name].meaning,
            fitted[name].weight if name in fitted else 1.0,
            fitted[name].center if name in fitted else None,
            fitted[name].scale if name in fitted else None,
        )
        for name in names
    )


def facts(detector: Detector, calibration: Calibration) -> tuple[Fact, ...]:
    """What the calibration holds for, in the words of someone who has not read the paper."""
    manifest, plan, session = detector.bundle.manifest, detector.plan, detector.session
    names, image, latent = manifest.class_names, manifest.image, manifest.latent
    space = f"; it denoises latents of {latent.channels} x {latent.height} x {latent.width}" if latent else ""
    more = f" and {len(names) - CLASSES_NAMED} more" if len(names) > CLASSES_NAMED else ""
    engine = f", engine {session.engine_sha256[:12]}" if session.engine_sha256 else ""
    guidance = f"guided by the predicted class ({plan.guidance:g})" if plan.guidance > 0 else "without guidance"
    fusion = calibration.fusion
    fitted = f"; {fusion.n} others to fit how the witnesses are combined" if fusion else ""
    stages = " or ".join(map(str, plan.stages))
    aside = f"; {calibration.set_aside} files could not be used" if calibration.set_aside else ""
    return (
        Fact("classifier", f"{manifest.classifier.origin}, {manifest.classifier.parameters:,} parameters"),
        Fact("classes", f"{len(names)}: {', '.join(names[:CLASSES_NAMED])}{more}"),
        Fact(
            "diffusion model",
            f"{manifest.unet.origin}, {manifest.unet.parameters:,} parameters, predicts {manifest.unet.prediction}; "
            f"noise schedule: {manifest.unet.schedule_origin}, {len(detector.bundle.alpha_bar)} steps{space}",
        ),
        *([Fact("autoencoder", f"{latent.origin}, {latent.parameters:,} parameters")] if latent else []),
        Fact("images", f"{image.width} x {image.height} pixels, {'grey' if image.channels == 1 else 'RGB'}"),
        Fact(
            "plan",
            f"noised up to step {', '.join(map(str, plan.start_times))}, denoised {plan.stride} steps at a time, "
            f"{plan.repeats} noise draws an image, {guidance}; {plan.sampler} on the {plan.schedule} schedule; "
            f"the classifier's {plan.space} are compared by {plan.norm}",
        ),
        Fact(
            "cost",
            f"{detector.evaluations} evaluations of the diffusion model an image"
            f"{f'; fewer where it is clear after {stages} noise draws' if plan.stages else ''}",
        ),
        Fact("engine", f"{session.precision} on {session.backend}{engine}"),
        Fact("calibrated on", f"{calibration.n} images for the threshold{fitted}{aside}"),
        Fact("made with", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
        Fact("fingerprint", calibration.fingerprint.short),
    )
