"""diffood inspect: what a bundle holds."""

import json
from typing import Any

import typer

from diffood.cli.options import shared as options
from diffood.errors import CalibrationError
from diffood.runtime.bundle.bundle import LatentEntry, open_bundle
from diffood.runtime.bundle.calibration import list_kept, load_calibrated_fusion, load_calibration


def inspect(bundle: options.BundlePath, as_json: options.AsJson = False) -> None:
    """Check a bundle's hashes and show its models, graphs, plans and calibration.

    Example: diffood inspect bundle
    """
    opened = open_bundle(bundle)
    manifest = opened.manifest
    try:
        calibration = load_calibration(opened)
    except CalibrationError:
        calibration = None
    load_calibrated_fusion(opened, calibration)  # its bank has a hash too
    kept = list_kept(opened)
    if as_json:
        content: dict[str, Any] = {
            "manifest": manifest.model_dump(mode="json"),
            "calibration": calibration and calibration.summary(),
            "kept_calibrations": {
                name: old.summary() | {"fingerprint_short": old.fingerprint.short} for name, old in kept.items()
            },
        }
        typer.echo(json.dumps(content))
        return
    image = manifest.image
    lines = [
        f"bundle      {bundle}, format {manifest.format}, all {len(manifest.files)} files as exported",
        f"images      {image.channels}x{image.height}x{image.width}",
        *_describe_latent(manifest.latent),
        f"unet        {manifest.unet.origin}, {manifest.unet.parameters:,} parameters, labels: {manifest.unet.labels}, "
        f"predicts {manifest.unet.prediction}",
        f"schedule    {len(opened.alpha_bar)} steps ({manifest.unet.schedule_origin})",
        f"classifier  {manifest.classifier.origin}, {manifest.classifier.parameters:,} parameters, "
        f"{manifest.feature_count} features",
        f"classes     {len(manifest.class_names)}: {', '.join(manifest.class_names[:12])}",
    ]
    for graph in manifest.graphs:
        if graph.precision != "fp32" and graph.file == opened.graph(graph.role).file:
            lines.append(f"graph       {graph.role}: {graph.file} stays fp32 in the {graph.precision} variant")
            continue
        size = opened.entry(graph.file).size / 1e6
        line = f"graph       {graph.role}: {graph.file}, {graph.precision}, opset {graph.opset}, {size:.1f} MB"
        outside = f", weights in {graph.data}, {opened.entry(graph.data).size / 1e6:.1f} MB" if graph.data else ""
        lines.append(line + outside)
    for name, plan in manifest.plans.items():
        default = " (default)" if name == manifest.default_plan else ""
        evaluations = plan.evaluations(opened.tables(plan))
        lines.append(f"plan        {name}{default}: {options.describe_plan(plan, evaluations)}")
    if calibration is None:
        lines.append(f"calibrated  no; run `diffood calibrate {bundle} --images DIR`")
    else:
        lines.append(f"calibrated  {calibration.method}, {calibration.n} images, threshold {calibration.threshold:.6f}")
        if calibration.per_class:
            own = len(calibration.own_thresholds)
            lines.append(f"per class   {own} of {len(manifest.class_names)} predicted classes have their own threshold")
        lines += options.describe_fusion(calibration.fusion) if calibration.fusion else []
        lines.append(f"guarantee   {calibration.guarantee}")
    lines += [
        f"kept        {name}: {old.method}, {old.n} images, alpha {old.alpha:g}, threshold {old.threshold:.6f}, "
        f"fingerprint {old.fingerprint.short}"
        for name, old in kept.items()
    ]
    lines.append(f"made with   {', '.join(f'{name} {version}' for name, version in manifest.versions.items())}")
    typer.echo("\n".join(lines))


def _describe_latent(latent: LatentEntry | None) -> list[str]:
    if latent is None:
        return []
    size = f"{latent.channels}x{latent.height}x{latent.width}"
    return [f"latents     {size}, {latent.origin}, {latent.parameters:,} parameters; denoised in the place of images"]
