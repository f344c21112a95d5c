"""What `diffood inspect` prints of a bundle, in lines. Prints nothing itself."""

from typing import TYPE_CHECKING

from rich.filesize import decimal

from diffood.calibration.replacing import describe_kept
from diffood.cli.text.plan import describe_fusion, describe_plan
from diffood.cli.text.verification import describe_served
from diffood.runtime.bundle.bundle import Bundle, GraphEntry
from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.bundle.engines import EngineFolder
from diffood.runtime.printable import shell_word

if TYPE_CHECKING:
    from diffood.calibration.inspection import Inspection
    from diffood.runtime.bundle.signing import SignatureState

CLASSES_SHOWN = 12


def describe_bundle(found: "Inspection") -> list[str]:
    """Lines about the models, graphs, engines and plans, the calibrations, and what was verified."""
    bundle, calibration = found.bundle, found.calibration
    return [
        *_describe_models(bundle),
        f"digest      {found.digest}",
        *map(_describe_signature, found.signatures),
        *(_describe_graph(bundle, graph) for graph in bundle.manifest.graphs),
        *map(_describe_engine, found.engines),
        *_describe_detectors(found),
        *_describe_plans(bundle),
        *_describe_calibration(bundle, calibration),
        *(
            f"kept        {name}: {describe_kept(old)}, fingerprint {old.fingerprint.short}"
            for name, old in found.kept.items()
        ),
        *_describe_verified(found),
        f"made with   {', '.join(f'{name} {version}' for name, version in bundle.manifest.versions.items())}",
    ]


def _describe_signature(one: "SignatureState") -> str:
    what = f"signed      {one.name}: {one.files} files, key {one.key[:16]}…"
    if one.changed:
        return f"{what}, not valid: {len(one.changed)} changed since, {one.changed[0]} among them"
    return f"{what}, {f'trusted by {one.trusted}' if one.trusted else 'not checked: no --trust KEY of it was given'}"


def _describe_models(bundle: Bundle) -> list[str]:
    manifest = bundle.manifest
    image, latent, classifier = manifest.image, manifest.latent, manifest.classifier
    names = manifest.class_names
    more = f" and {len(names) - CLASSES_SHOWN} more" if len(names) > CLASSES_SHOWN else ""
    lines = [
        f"bundle      {bundle.path}, format {manifest.format}, all {len(manifest.files)} files unchanged since export",
        f"images      {image.channels}x{image.height}x{image.width}",
    ]
    if latent is not None:
        lines.append(
            f"latents     {latent.channels}x{latent.height}x{latent.width}, {latent.origin}, "
            f"{latent.parameters:,} parameters; denoised instead of images"
        )
    return [
        *lines,
        *_describe_unet(bundle),
        f"classifier  {classifier.origin}, {classifier.parameters:,} parameters, {manifest.feature_count} features",
        f"classes     {len(names)}: {', '.join(names[:CLASSES_SHOWN])}{more}",
    ]


def _describe_unet(bundle: Bundle) -> list[str]:
    unet = bundle.manifest.unet
    if unet is None:
        return ["unet        none: the classifier's own witnesses judge; `diffood train-unet` makes one"]
    return [
        f"unet        {unet.origin}, {unet.parameters:,} parameters, labels: {unet.labels}, predicts {unet.prediction}",
        f"schedule    {len(bundle.alpha_bar)} steps ({unet.schedule_origin})",
    ]


def _describe_graph(bundle: Bundle, graph: GraphEntry) -> str:
    if graph.precision != "fp32" and graph.file == bundle.graph(graph.role).file:
        return f"graph       {graph.role}: {graph.file} stays fp32 in the {graph.precision} variant"
    weights = f", weights in {graph.data}, {decimal(bundle.entry(graph.data).size)}" if graph.data else ""
    size = decimal(bundle.entry(graph.file).size)
    return f"graph       {graph.role}: {graph.file}, {graph.precision}, opset {graph.opset}, {size}{weights}"


def _describe_engine(engine: EngineFolder) -> str:
    record, profile = engine.record, engine.record.profile
    size = decimal(sum(stage.size for stage in record.stages))
    gpu = f", built on {record.gpu} with driver {record.driver}" if record.gpu else ""
    return (
        f"engine      {engine.path.name}: {record.library} {record.library_version}, {record.precision}, plan "
        f"{record.plan_name}, for compute capability {record.compute_capability}{gpu}, {profile.smallest} to "
        f"{profile.largest} images (best {profile.usual}), {size}"
    )


def _describe_detectors(found: "Inspection") -> list[str]:
    record = found.detectors
    if record is None:
        return [f"detector    none; `diffood export --bundle {shell_word(found.bundle.path)}` writes detector.onnx"]
    plan = f"plan {record.plan_name}" if record.plan_name else "a plan of its own"
    lines = []
    for entry in record.files:
        gives = "verdicts" if entry.calibrated else "witnesses, no verdicts"
        weights = f", weights in {', '.join(entry.data)}" if entry.data else ""
        stale = f"; it {reason}" if (reason := found.stale.get(entry.file)) else ""
        lines.append(
            f"detector    {entry.file}: {entry.precision}, {plan}, {decimal(entry.size)}{weights}, gives {gives}{stale}"
        )
    return lines


def _describe_verified(found: "Inspection") -> list[str]:
    if found.serves is None:
        return []
    lines = found.conclusions() or [f"nothing; run `diffood verify {shell_word(found.bundle.path)} --images DIR`"]
    return [*(f"verified    {line}" for line in lines), *describe_served(found.serves, width=12)]


def _describe_plans(bundle: Bundle) -> list[str]:
    default = bundle.manifest.default_plan
    return [
        f"plan        {name}{' (default)' if name == default else ''}: "
        f"{describe_plan(plan, plan.evaluations(bundle.tables(plan)))}"
        for name, plan in bundle.manifest.plans.items()
    ]


def _describe_calibration(bundle: Bundle, calibration: Calibration | None) -> list[str]:
    if calibration is None:
        return [f"calibrated  no; run `diffood calibrate {shell_word(bundle.path)} --images DIR`"]
    lines = [f"calibrated  {calibration.method}, {calibration.n} images, threshold {calibration.threshold:.6f}"]
    if calibration.per_class:
        own, classes = len(calibration.own_thresholds), len(bundle.manifest.class_names)
        lines.append(f"per class   {own} of {classes} predicted classes have their own threshold")
    lines += describe_fusion(calibration.fusion) if calibration.fusion else []
    seen = [f"detection   {calibration.detection.statement}"] if calibration.detection else []
    return [*lines, f"guarantee   {calibration.guarantee}", *seen]
