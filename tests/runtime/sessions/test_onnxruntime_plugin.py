"""Providers of ONNX Runtime's plug-in interface: what is refused and why, and that one that works gives the same.

ONNX Runtime lists its own CPU provider as it lists those of plug-ins, so the whole path runs on every machine; real
libraries that are no plug-ins bring about the refusals. With a plug-in at hand:
DIFFOOD_PLUGIN=NAME[,KEY=VALUE]...@LIBRARY pytest tests/runtime/sessions/test_onnxruntime_plugin.py
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from diffood.errors import DeviceError, UsageError
from diffood.runtime.backends import PLUGIN, PluginProvider, read_provider, require_known_backend, without_library
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.method.plan import CLASSIFIER
from diffood.runtime.sessions import SessionRequest
from diffood.runtime.sessions.backends import examine_backend, open_session
from diffood.runtime.sessions.onnxruntime_plugin import has_plugins

BUILT_IN = "CPUExecutionProvider"
GIVEN = os.environ.get("DIFFOOD_PLUGIN")
needs_plugins = pytest.mark.skipif(not has_plugins(), reason="this ONNX Runtime is too old for plug-ins")


def test_the_name_of_a_backend_carries_the_provider() -> None:
    for provider in (
        PluginProvider("QNNExecutionProvider"),
        PluginProvider("ggml", (("device", "cpu"), ("path", "/opt/a b/=c"))),
        PluginProvider("webgpu", (), Path("/opt/lib@2/libprovider.so")),
    ):
        assert read_provider(provider.backend) == provider
        assert require_known_backend(provider.backend) == provider.backend
    one = PluginProvider("ggml", (("device", "cpu"),), Path("/opt/lib.so"))
    assert one.backend == f"{PLUGIN}:ggml,device=cpu@/opt/lib.so"
    assert without_library(one.backend) == f"{PLUGIN}:ggml,device=cpu"
    assert read_provider(PLUGIN) is None


AMBIGUOUS = ("a,b", "a b", "", "a,=c", "a,b=", "a,b=c,d", "a@", "a\x1b[2J", "a,b=\n", "a@lib\x00.so", "../a", "a;b")


def test_a_name_that_could_be_read_as_another_is_refused(subtests: pytest.Subtests) -> None:
    for name in AMBIGUOUS:
        with subtests.test(name=name), pytest.raises(ValueError, match="a provider's name has letters"):
            require_known_backend(f"{PLUGIN}:{name}")


def test_no_other_backend_has_a_provider() -> None:
    for name in ("onnxruntime-cpu:ggml", "tensorrt:", "plugin:ggml"):
        with pytest.raises(ValueError, match="no such backend"):
            require_known_backend(name)


def request_of(bundle: Bundle) -> SessionRequest:
    return SessionRequest(bundle, bundle.plan("fast"), "fp32", 4)


@needs_plugins
def test_a_provider_that_works_gives_what_the_cpu_gives(small_bundle: Bundle, clothes: npt.NDArray[np.uint8]) -> None:
    """In calls of fixed shapes: the last one is filled up."""
    session = open_session(PluginProvider(BUILT_IN).backend, request_of(small_bundle))
    exact = open_session("onnxruntime-cpu", request_of(small_bundle))
    assert (session.backend, session.batch) == (f"{PLUGIN}:{BUILT_IN}", 4)
    for count in (0, 1, 6):
        feeds = {"image": clothes[:count, None]}
        found, wanted = session.run(0, feeds), exact.run(0, feeds)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)


REFUSALS = [
    (None, UsageError, "needs --provider NAME"),
    (PluginProvider("ggml"), DeviceError, f"knows no such provider; give its library .* There are: .*{BUILT_IN}"),
    (PluginProvider("ggml", (), Path("nowhere.so")), DeviceError, "--provider-library nowhere.so is not a file"),
    (PluginProvider("ggml", (), Path(__file__)), DeviceError, "cannot be loaded by onnxruntime .* plug-in provider's"),
    (
        PluginProvider("ggml", (), Path(onnxruntime.capi.onnxruntime_pybind11_state.__file__)),
        DeviceError,
        "cannot be loaded by onnxruntime .* plug-in provider's",
    ),
]


@needs_plugins
def test_what_cannot_run_is_refused_in_one_sentence(small_bundle: Bundle, subtests: pytest.Subtests) -> None:
    for provider, kind, message in REFUSALS:
        backend = PLUGIN if provider is None else provider.backend
        with subtests.test(backend=backend):
            with pytest.raises(kind, match=message) as refused:
                open_session(backend, request_of(small_bundle))
            assert "\n" not in str(refused.value)
            found = examine_backend(backend, request_of(small_bundle))
            assert (found.usable, found.reason) == (False, str(refused.value).rstrip("."))


@needs_plugins
def test_an_option_that_the_provider_refuses_is_a_sentence(small_bundle: Bundle) -> None:
    """Of a session, not of the process: another one opens afterwards."""
    provider = PluginProvider(BUILT_IN, (("nonsense", "1"),))
    program = f"""
import sys
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.sessions import SessionRequest
from diffood.runtime.sessions.backends import open_session
from diffood.errors import DeviceError
bundle = open_bundle(sys.argv[1])
for backend in ({provider.backend!r}, {PluginProvider(BUILT_IN).backend!r}):
    try:
        open_session(backend, SessionRequest(bundle, bundle.plan("fast"), "fp32", 4))
    except DeviceError as error:
        assert "try another --provider-option" in str(error), error
"""
    command = [sys.executable, "-c", program, str(small_bundle.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(GIVEN is None, reason="DIFFOOD_PLUGIN names no plug-in")
def test_a_plug_in_gives_what_the_cpu_gives_or_says_that_it_takes_nothing(
    small_bundle: Bundle, clothes: npt.NDArray[np.uint8]
) -> None:
    backend, feeds = f"{PLUGIN}:{GIVEN}", {"image": clothes[:6, None]}
    assert examine_backend(backend, None).usable, examine_backend(backend, None).reason
    for plan in (small_bundle.plan("fast"), CLASSIFIER):
        request = SessionRequest(small_bundle, plan, "fp32", 4)
        try:
            session = open_session(backend, request)
        except DeviceError as error:
            assert "takes no node of stage 1, so that all would run on the CPU" in str(error)
            continue
        found, wanted = session.run(0, feeds), open_session("onnxruntime-cpu", request).run(0, feeds)
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=0, atol=0.02 * float(np.abs(value).max()))
