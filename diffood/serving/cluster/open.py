"""Opens workers on a Ray cluster."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from diffood.errors import MissingExtraError, UsageError
from diffood.runtime.backends import define
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import load_calibration
from diffood.runtime.inputs.decoding import DecodeOptions
from diffood.serving.cluster.cluster import Cluster
from diffood.serving.cluster.connection import LOCAL, connect, count_slots, cpus, listen_on_loopback, proxies
from diffood.serving.cluster.worker import WorkerConfig, identify
from diffood.serving.request import ScorerRequest

DECODERS_PER_WORKER = 1  # processes; a damaged image then ends one of them and not the worker


@contextlib.contextmanager
def open_cluster(address: str, request: ScorerRequest) -> Iterator[Cluster]:
    """Workers for a calibrated bundle, which lies at the same path on every machine; ended on leaving.

    Args:
        address: "ray" for a Ray on this machine that ends with the run, or a running one: "auto", HOST:PORT or
            ray://HOST:PORT.
        request: What the workers run. Backend "auto" is the one the bundle was calibrated on; 0 threads are the CPUs of
            the smallest machine.

    Raises:
        MissingExtraError: Ray is not installed.
        UsageError: There is no cluster at the address, or none of its machines fits.
        BundleError: As `Detector.open`, on this machine or any other.
        CalibrationError: As `Detector.open`, on this machine or any other.
    """
    if address == LOCAL:
        listen_on_loopback()
    try:
        import ray
    except ImportError:
        raise MissingExtraError("--cluster needs Ray: pip install 'diffood[ray]', on every machine.") from None
    path = request.bundle.absolute()
    bundle = open_bundle(path)
    calibration = load_calibration(bundle)
    backend = calibration.fingerprint.backend if request.backend == "auto" else request.backend
    gpu = define(backend).gpu
    with connect(ray, address):
        nodes = ray.nodes()
        threads = request.threads or min(filter(None, map(cpus, nodes)), default=1)
        if not count_slots(nodes, gpu, threads):
            needed = f"a GPU, which {backend} needs" if gpu else f"{threads} CPUs for the {threads} --threads asked for"
            raise UsageError(f"No machine of the cluster has {needed}; see `ray status`.")
        decoders = DECODERS_PER_WORKER if request.decoders is None else request.decoders
        config = WorkerConfig(
            bundle=path,
            identity=identify(bundle, calibration),
            folder=Path.cwd(),
            backend=backend,
            precision=request.precision,
            batch=request.batch,
            threads=threads,
            limits=request.limits,
            decoding=DecodeOptions(decoders, request.decode_timeout),
            pictures=request.pictures,
            choice=request.choice,
            digest=bundle.digest if bundle.unlisted.seal else None,
            proxies=proxies() if address == LOCAL else None,
        )
        cluster = Cluster(ray, bundle, calibration, config, gpu)
        try:
            yield cluster
        finally:
            cluster.close()
