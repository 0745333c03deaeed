"""doctor and a TensorFlow that works, is missing, is broken, crashes, hangs or computes wrongly."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from doctor_machines import computer, only, proof, troubles

from cnnlab import doctor
from cnnlab.doctor import Outcome, _framework, _machine, _proof

BEGUN = [{"stage": "import", "module": "numpy"}, {"stage": "import", "module": "tensorflow"}]


def full(**changes):
    return doctor.examine(computer(**changes))


# -- missing and broken ----------------------------------------------------------------------------------------------


def test_no_tensorflow():
    findings = full(packages={"tensorflow": []})
    finding = only(findings, "tensorflow")
    assert "not installed in this environment" in finding.finding
    assert finding.fix == ".venv/bin/python -m pip install -r requirements.txt"
    assert not [f for f in findings if f.area == "proof"]


@pytest.mark.parametrize(
    ("error", "cause", "fix"),
    [
        ("ImportError: numpy.core.multiarray failed to import", "numpy mismatch", "-r requirements.txt"),
        ("ValueError: numpy.dtype size changed, may indicate binary incompatibility", "numpy mismatch", "-r req"),
        ("ImportError: C extension: None not built. If you want to import pandas", "numpy mismatch", "-r req"),
        ("AttributeError: _ARRAY_API not found", "numpy mismatch", "-r requirements.txt"),
        ("VersionError: Detected incompatible Protobuf Gencode/Runtime versions", "protobuf", "-r requirements.txt"),
        ("ImportError: DLL load failed while importing _pywrap_tensorflow_internal", "Visual C++", "winget install"),
        ("ImportError: /lib/x86_64-linux-gnu/libstdc++.so.6: version `GLIBCXX_3.4.30' not found", "C++", "conda"),
        ("ImportError: libx.so: failed to map segment from shared object", "noexec", "another folder"),
        ("ImportError: dlopen(x): incompatible architecture (have 'x86_64', need 'arm64')", "processor", "--force"),
        ("AttributeError: partially initialized module 'keras' has no attribute 'layers'", "name of a library", "--f"),
        ("ImportError: x.so: undefined symbol: _ZN6tensorflow", "mixed", "--force-reinstall"),
        ("NotFoundError: dlopen(libmetal_plugin.dylib): Symbol not found", "tensorflow-metal", "uninstall"),
        ("OSError: [Errno 28] No space left on device", "disk is full", "cache purge"),
        ("MemoryError: ", "memory has ended", "Close other"),
        ("ModuleNotFoundError: No module named 'wrapt'", "package is missing", "-r requirements.txt"),
        ("ValueError: Unable to import backend : torchx", "backend", "KERAS_BACKEND=tensorflow"),
        ("RuntimeError: something new", "cannot be loaded", "-r requirements.txt"),
    ],
)
def test_import_errors(error, cause, fix):
    facts = [*BEGUN, {"stage": "broken", "module": "tensorflow", "error": error}, {"stage": "end"}]
    finding = only(full(facts=facts), "tensorflow")
    assert finding.status == "problem"
    assert finding.finding == f"`import tensorflow` fails: {error}"
    assert cause in finding.why
    assert fix in finding.fix


def test_the_telling_line_of_a_long_error_is_quoted():
    error = "ImportError: Traceback\n  File x\nImportError: numpy.core.umath failed to import\n\nSee https://"
    facts = [*BEGUN, {"stage": "broken", "module": "keras", "error": error}, {"stage": "end"}]
    assert "numpy.core.umath failed" in only(full(facts=facts), "tensorflow").finding


@pytest.mark.parametrize(
    ("status", "name", "words"),
    [
        (-signal.SIGILL, "SIGILL", "lacks an instruction"),
        (128 + signal.SIGILL, "SIGILL", "lacks an instruction"),
        (0xC000001D, "SIGILL", "lacks an instruction"),
        (0xC000001D - 2**32, "SIGILL", "lacks an instruction"),
        (-signal.SIGSEGV, "SIGSEGV", "segmentation fault"),
        (0xC0000005, "SIGSEGV", "segmentation fault"),
        (-signal.SIGABRT, "SIGABRT", "an abort"),
        (-signal.SIGBUS, "SIGBUS", "cut short"),
        (-signal.SIGKILL, "SIGKILL", "memory ended"),
        (3, "exit status 3", "Its last words: no message"),
        (0, "exit status 0", "Its last words"),
    ],
)
def test_crashes_at_import(status, name, words):
    finding = only(full(facts=BEGUN, status=status), "tensorflow")
    assert finding.status == "problem"
    assert finding.finding == f"The process ended while importing tensorflow ({name})."
    assert words in finding.why
    assert finding.fix


def test_a_crash_whose_log_knows_the_reason():
    log = "F0000 tensorflow: Loaded runtime CuDNN library: 9.1.0 but source was compiled with: 9.3.0."
    facts = [fact for fact in proof("RTX 4090") if fact["stage"] != "end"]
    crash = facts.index({"stage": "convolution", "device": "gpu:0"})
    findings = full(facts=facts[: crash + 1], status=-signal.SIGABRT, errors=log)
    finding = only(findings, "proof", "problem")
    assert finding.finding == "The process ended while computing a convolution on gpu:0 (SIGABRT)."
    assert "cuDNN is older" in finding.why
    error = "Fatal Python error\nnumpy.core.multiarray failed to import"
    assert "numpy mismatch" in only(full(facts=BEGUN, status=1, errors=error), "tensorflow").why


def test_hanging():
    finding = only(full(facts=BEGUN, status=None, trouble="timeout"), "tensorflow")
    assert finding.finding == "Stopped after 300 s while importing tensorflow."
    assert "slow disk" in finding.why
    facts = proof("RTX 5090")
    training = next(i for i, f in enumerate(facts) if f["stage"] == "training" and f["device"] == "gpu:0")
    finding = only(full(facts=facts[: training + 1], status=None, trouble="timeout"), "proof", "problem")
    assert "while training on gpu:0" in finding.finding
    assert "--timeout 1800" in finding.fix


def test_a_python_that_does_not_start():
    finding = only(full(facts=[], status=None, trouble="missing", errors="No such file"), "python", "problem")
    assert "cannot be started: No such file" in finding.finding


def test_a_slow_start_is_a_note():
    facts = proof()
    for fact in facts:
        if fact["stage"] == "imported":
            fact["seconds"] = 20.0  # three modules
    assert "start in 60.0 s" in only(full(facts=facts), "tensorflow", "note").finding


# -- the proof -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "device", "change", "words"),
    [
        ("convolved", "cpu:0", {"error": 1.1e-4}, "differs from numpy's by 1.1e-04"),
        ("convolved", "gpu:0", {"gradient_error": 0.5}, "its gradient by 5.0e-01"),
        ("convolved", "gpu:0", {"gradient_error": float("nan")}, "its gradient by nan"),
        ("convolved", "gpu:0", {"error": float("nan")}, "differs from numpy's by nan"),
        ("convolved", "gpu:0", {"place": "/job:localhost/device:CPU:0"}, "meant for card 0 ran on"),
        ("trained", "cpu:0", {"last": 1.2}, "does not learn"),
        ("trained", "gpu:0", {"last": float("nan")}, "does not learn"),
        ("trained", "gpu:0", {"difference": 0.02}, "differ from the processor's by 2.0e-02"),
        ("trained", "gpu:0", {"difference": float("nan")}, "differ from the processor's by nan"),
    ],
)
def test_a_proof_that_fails(stage, device, change, words):
    facts = proof("RTX 4090")
    fact = next(f for f in facts if f["stage"] == stage and f["device"] == device)
    fact.update(change)
    finding = only(full(facts=facts), "proof", "problem")
    assert words in finding.finding
    assert "--force-reinstall" in finding.fix


def test_the_limits_themselves_pass():
    facts = proof("RTX 4090")
    for fact in facts:
        if fact["stage"] == "convolved":
            fact["error"] = _framework.CONVOLUTION_LIMIT
        if fact["stage"] == "trained":
            fact["difference"] = _framework.TRAINING_LIMIT
    assert troubles(full(facts=facts)) == []


@pytest.mark.parametrize(
    ("error", "cause", "fix"),
    [
        ("InternalError: 'cuLaunchKernel' failed with 'CUDA_ERROR_INVALID_HANDLE'", "generation of cards", "jax"),
        ("ResourceExhaustedError: OOM when allocating tensor", "memory is used up", "nvidia-smi"),
        ("FailedPreconditionError: DNN library is not found.", "another process holds", "nvidia-smi"),
        ("InternalError: libdevice not found at ./libdevice.10.bc", "XLA", "nvidia-cuda-nvcc-cu12"),
        ("RuntimeError: something new", "does not work", "--force-reinstall"),
    ],
)
def test_devices_that_fail(error, cause, fix):
    facts = [*proof()[:-1], {"stage": "failed", "device": "gpu:0", "error": error}, {"stage": "end"}]
    finding = only(full(facts=facts), "proof", "problem")
    assert finding.finding == f"Training on card 0 fails: {error}"
    assert cause in finding.why
    assert fix in finding.fix


# -- log lines -------------------------------------------------------------------------------------------------------

LOG = """WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795473071.374347    4865 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be \
used.
2026-11-23 10:00:00.000000: I tensorflow/core/util/port.cc:153] oneDNN custom operations are on. You may see slightly \
different numerical results
E0000 00:00:1795473071.9 4865 cuda_dnn.cc:8579] Unable to register cuDNN factory: Attempting to register factory
E0000 00:00:1795473082.975430 4865 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow with the appropriate compiler \
flags.
W0000 TF-TRT Warning: Could not find TensorRT
"""


def test_harmless_lines_are_named_harmless():
    finding = only(full(errors=LOG), "log")
    assert finding.status == "note"
    assert finding.finding.startswith("Harmless log lines:")
    for name in ("oneDNN custom operations", "register cuDNN factory", "failed call to cuInit", "TensorRT"):
        assert name in finding.finding


def test_the_same_line_is_serious_where_there_is_a_card():
    line = "E0000 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error"
    (finding,) = _framework.check_log(computer(), line, has_card=True)
    assert finding.status == "warning"
    assert "does not reach the NVIDIA driver" in finding.why
    assert _framework.check_log(computer(), line, has_card=False)[0].status == "note"


# -- the processes, for real -----------------------------------------------------------------------------------------


def fake_module(folder: Path, name: str, code: str) -> doctor.Machine:
    """This machine with a `name` of our making first on the path."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return dataclasses.replace(_machine.here(), environment=environment)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise ImportError('numpy.core.multiarray failed to import')", "numpy.core.multiarray failed"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "while importing tensorflow (SIGILL)"),
        ("import os; os.abort()", "while importing tensorflow (SIGABRT)"),
        ("import ctypes; ctypes.string_at(0)", "while importing tensorflow (SIGSEGV)"),
        ("import os; os._exit(7)", "while importing tensorflow (exit status 7)"),
        ("import sys; sys.exit(5)", "SystemExit: 5"),
        ("print('@cnnlab', flush=True); raise ValueError('ü ' * 3)", "ValueError: ü ü ü"),
    ],
)
def test_a_really_broken_tensorflow(tmp_path, code, words):
    machine = fake_module(tmp_path, "tensorflow", code)
    run = _framework.start(machine, timeout=60, modules=["tensorflow", "json"])
    findings = _framework.check(machine, doctor._gpu.look(computer(), fast=True), run, timeout=60)
    assert words in only(findings, "tensorflow", "problem").finding


def test_a_tensorflow_that_really_hangs(tmp_path):
    machine = fake_module(tmp_path, "tensorflow", "import time; time.sleep(60)")
    run = _framework.start(machine, timeout=1.5, modules=["tensorflow"])
    findings = _framework.check(machine, doctor._gpu.look(computer(), fast=True), run, timeout=1.5)
    assert "Stopped after 2 s while importing tensorflow" in only(findings, "tensorflow", "problem").finding


def test_a_real_run_of_a_command():
    python = _machine.here().executable
    assert _machine.run([python, "-c", "print('a')"], timeout=60) == Outcome(0, "a\n")
    assert _machine.run(["/no/such/program"], timeout=1).trouble == "missing"
    late = _machine.run([python, "-uc", "print('a'); import time; time.sleep(60)"], timeout=1.5)
    assert (late.trouble, late.output) == ("timeout", "a\n")


# -- the script of the proof, in this process ------------------------------------------------------------------------


def facts_of(capsys) -> list[dict]:
    lines = capsys.readouterr().out.splitlines()
    return [json.loads(line[len(_proof.MARK) :]) for line in lines if line.startswith(_proof.MARK)]


def test_the_reference_convolution_is_scipys():
    signal_ = pytest.importorskip("scipy.signal")
    random = np.random.default_rng(0)
    images, kernel = random.normal(size=(2, 6, 5, 3)), random.normal(size=(3, 3, 3, 4))
    expected = np.zeros((2, 6, 5, 4))
    for n in range(2):
        for f in range(4):
            for c in range(3):
                expected[n, :, :, f] += signal_.correlate2d(images[n, :, :, c], kernel[:, :, c, f], mode="same")
    np.testing.assert_allclose(_proof.reference_convolution(images, kernel), expected, atol=1e-12)


def test_the_proof_holds_here_and_sees_a_wrong_number(capsys, monkeypatch):
    pytest.importorskip("tensorflow")
    devices = _proof.find_devices()
    assert devices[0] == "cpu:0"
    _proof.prove(["cpu:0"])
    facts = {fact["stage"]: fact for fact in facts_of(capsys)}
    assert facts["convolved"]["error"] < 1e-5
    assert facts["convolved"]["gradient_error"] < 1e-4
    assert facts["trained"]["last"] < facts["trained"]["first"] / 2
    assert facts["trained"]["difference"] == 0
    assert "CPU" in facts["convolved"]["place"]
    real = _proof.reference_convolution
    monkeypatch.setattr(_proof, "reference_convolution", lambda images, kernel: real(images, kernel) * 1.001)
    _proof.check_convolution("cpu:0")
    assert facts_of(capsys)[0]["error"] > _framework.CONVOLUTION_LIMIT


def test_training_is_repeatable_from_the_fixed_weights():
    pytest.importorskip("tensorflow")
    losses, weights = _proof.train("cpu:0", 4)
    again, others = _proof.train("cpu:0", 4)
    np.testing.assert_allclose(losses, again, rtol=1e-5)
    assert _proof.difference(weights, others) < 1e-5


def test_a_device_that_raises_does_not_end_the_proof(capsys, monkeypatch):
    monkeypatch.setattr(
        _proof, "check_convolution", lambda device: (_ for _ in ()).throw(RuntimeError("broken " * 999))
    )
    _proof.prove(["cpu:0", "gpu:0"])
    facts = facts_of(capsys)
    assert [fact["device"] for fact in facts if fact["stage"] == "failed"] == ["cpu:0", "gpu:0"]
    assert len(facts[1]["error"]) == 2000


def test_the_script_imports_and_ends(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["x", json.dumps({"modules": ["json", "no_such_module"]})])
    _proof.main()
    assert [fact["stage"] for fact in facts_of(capsys)] == ["import", "imported", "import", "broken", "end"]


def test_the_whole_script(capsys, monkeypatch):
    """main() in this process, with the devices and the proof left out."""
    pytest.importorskip("keras")
    monkeypatch.setattr(_proof, "find_devices", lambda: ["cpu:0"])
    monkeypatch.setattr(_proof, "prove", lambda devices: _proof.emit(stage="proved", devices=devices))
    request = {"modules": ["json"]}
    monkeypatch.setattr("sys.argv", ["x", json.dumps(request)])
    _proof.main()
    assert [fact["stage"] for fact in facts_of(capsys)] == ["import", "imported", "proved", "end"]
