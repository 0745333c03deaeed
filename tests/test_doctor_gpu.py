"""doctor on described graphics cards: each known fault is named, with the library, the card and the command."""

import pytest
from doctor_machines import (
    RTX_3060,
    RTX_4090,
    RTX_5090,
    SITE,
    TENSORFLOW,
    computer,
    only,
    proof,
    smi,
    troubles,
)

from cnnlab import doctor
from cnnlab.doctor import Finding, Outcome, Package, _gpu, _machine

INSTALL = '.venv/bin/python -m pip install "tensorflow[and-cuda]==2.21.0"'
BUILD_FILE = f"{TENSORFLOW}/python/platform/build_info.py"
GROWTH = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
WSL = "5.15.153.1-microsoft-standard-WSL2"


def look(machine: doctor.Machine) -> list[Finding]:
    return _gpu.look(machine, fast=False).findings


def pc(*cards, environment=GROWTH, **changes) -> doctor.Machine:
    return computer(nvidia_smi=smi(*(cards or [RTX_4090])), environment=environment, **changes)


def test_a_card_that_works():
    findings = doctor.examine(pc(facts=proof("NVIDIA GeForce RTX 4090")))
    assert {f.status for f in findings} == {"ok"}
    said = [f.finding for f in findings if f.area == "gpu"]
    assert said[0] == (
        "0: NVIDIA GeForce RTX 4090, compute capability 8.9, 24 GiB; driver 550.54.14; TensorFlow is built for CUDA "
        "12.5.1"
    )
    assert "weights equal the processor's to 3e-06" in findings[-1].finding


# -- driver ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("driver", "status"), [("524.99", "problem"), ("525.60.13", "ok"), ("580.1", "ok")])
def test_drivers_on_both_sides_of_the_oldest(driver, status):
    finding = look(pc((RTX_4090[0], driver, "8.9", 24564, 1)))[0]
    assert finding.status == status
    assert f"driver {driver}" in finding.finding
    if status == "problem":
        assert "CUDA 12 needs driver 525 or newer" in finding.why
        assert "ubuntu-drivers" in finding.fix


def test_the_driver_of_wsl_is_that_of_windows():
    old = (RTX_4090[0], "511.0", "8.9", 24564, 1)
    finding = look(pc(old, release=WSL))[0]
    assert "in Windows" in finding.fix
    assert "wsl --shutdown" in finding.fix


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 535.183", "sudo reboot"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "ubuntu-drivers"),
        ("No devices were found", "dmesg"),
        ("Failed to initialize NVML: Insufficient Permissions", "usermod"),
        ("Segmentation fault", "nvidia-smi"),
        ("", "nvidia-smi"),
    ],
)
def test_nvidia_smi_that_fails(words, fix):
    finding = only(look(computer(nvidia_smi=Outcome(9, errors=words))), "gpu")
    assert finding.status == "problem"
    assert finding.finding == f"nvidia-smi fails: {words.splitlines()[0] if words else 'no output'}"
    assert fix in finding.fix


def test_nvidia_smi_that_hangs():
    hung = computer(nvidia_smi=Outcome(None, trouble="timeout"))
    assert only(look(hung), "gpu").status == "problem"
    assert only(_gpu.look(hung, fast=True).findings, "gpu").status == "note"


def test_a_container_that_lost_its_card():
    machine = computer(
        nvidia_smi=Outcome(255, errors="Failed to initialize NVML: Unknown Error"), files={"/.dockerenv": ""}
    )
    assert "docker restart" in only(look(machine), "gpu").fix


def pci(vendor: str = "0x10de", kind: str = "0x030000") -> dict[str, str]:
    return {"/sys/bus/pci/devices/0000:01:00.0/vendor": vendor, "/sys/bus/pci/devices/0000:01:00.0/class": kind}


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({}, "ok", "no NVIDIA card"),
        ({"files": pci("0x8086")}, "ok", "no NVIDIA card"),
        ({"files": pci(kind="0x040300")}, "ok", "no NVIDIA card"),  # the sound part of a card passed elsewhere
        ({"files": pci()}, "warning", "no NVIDIA driver"),
        ({"files": {**pci(), "/.dockerenv": ""}}, "warning", "this container was started without it"),
        ({"files": {"/dev/dxg": ""}, "release": WSL}, "note", "No NVIDIA driver answers in WSL2"),
    ],
)
def test_no_driver(changes, status, words):
    finding = only(look(computer(**changes)), "gpu")
    assert finding.status == status
    assert words in finding.finding


def test_wsl_keeps_nvidia_smi_off_the_path():
    asked = []

    def run(command, **_):
        asked.append(command[0])
        return smi(RTX_4090)

    machine = computer(release=WSL, files={"/usr/lib/wsl/lib/nvidia-smi": ""}, run=run, environment=GROWTH)
    assert [f.status for f in look(machine)] == ["ok"]
    assert asked == ["/usr/lib/wsl/lib/nvidia-smi"]


# -- other systems ---------------------------------------------------------------------------------------------------


def test_native_windows_is_sent_to_wsl():
    windows = {"system": "Windows", "project": "C:\\lab", "prefix": "C:\\lab\\.venv", "which": lambda name: name}
    finding = only(look(computer(nvidia_smi=smi(RTX_4090), **windows)), "gpu")
    assert finding.status == "warning"
    assert "does not use it on native Windows" in finding.finding
    assert "wsl --install" in finding.fix


def test_macs():
    mac = {"system": "Darwin", "architecture": "arm64"}
    assert only(look(computer(**mac)), "gpu").status == "ok"
    finding = only(look(computer(**mac, packages={"tensorflow-metal": [Package("1.2.0")]})), "gpu")
    assert finding.status == "problem"
    assert "uninstall -y tensorflow-metal" in finding.fix


# -- what TensorFlow was built for -----------------------------------------------------------------------------------


def test_a_build_without_cuda():
    files = {BUILD_FILE: "build_info = collections.OrderedDict([('is_cuda_build', False)])"}
    finding = only(look(pc(files=files)), "gpu", "problem")
    assert "tensorflow is built without CUDA" in finding.finding
    assert finding.fix == INSTALL
    cpu = {"tensorflow": [], "tensorflow-cpu": [Package("2.21.0")]}
    machine = pc(files=files, packages=cpu, module_folder=lambda name: TENSORFLOW)
    finding = only(look(machine), "gpu", "problem")
    assert "uninstall -y tensorflow-cpu" in finding.fix
    assert '"tensorflow[and-cuda]"' in finding.fix


@pytest.mark.parametrize("text", [None, "nonsense", "OrderedDict([('a', 1 +)])"])
def test_a_build_that_cannot_be_read(text):
    machine = pc(files={BUILD_FILE: text})
    assert _gpu.read_build(machine) is None
    assert troubles(look(machine)) == []


def test_the_real_build_is_read():
    """The file that is read without importing says what TensorFlow says."""
    tensorflow = pytest.importorskip("tensorflow")
    assert _gpu.read_build(_machine.here()) == dict(tensorflow.sysconfig.get_build_info())


@pytest.mark.parametrize(
    ("capability", "status", "words"),
    [
        ("5.2", "problem", "serves 6.0 and newer"),
        ("6.1", "ok", ""),
        ("7.5", "ok", ""),
        ("8.6", "ok", ""),
        ("9.0", "note", "compiled by the driver at the first start"),
        ("10.0", "problem", "code up to 9.0"),
        ("12.0", "problem", "code up to 9.0"),
        ("[N/A]", "ok", ""),
    ],
)
def test_compute_capabilities(capability, status, words):
    findings = look(pc(("Card", "575.51", capability, 8192, 1)))
    said = [f for f in findings if words and words in f.finding]
    assert bool(said) == bool(words)
    assert (said[0].status if said else "ok") == status
    assert len(troubles(findings)) == (status == "problem")


def test_an_rtx_50xx_gets_two_ways_out():
    finding = only(look(pc(RTX_5090)), "gpu", "problem")
    assert "CUDA_ERROR_INVALID_PTX" in finding.why
    assert 'pip install "jax[cuda12]"' in finding.fix
    assert "export KERAS_BACKEND=jax" in finding.fix
    assert "export CUDA_VISIBLE_DEVICES=-1" in finding.fix
    plugin = {"jax-cuda12-plugin": [Package("0.10.2")]}
    taken = pc(RTX_5090, environment={**GROWTH, "KERAS_BACKEND": "jax"}, packages=plugin)
    assert troubles(look(taken)) == [], "whoever took the first is left in peace"


# -- NVIDIA's packages -----------------------------------------------------------------------------------------------


def test_a_missing_cudnn_is_named():
    finding = only(look(pc(packages={"nvidia-cudnn-cu12": []})), "gpu", "warning")
    assert finding.finding == "Of NVIDIA's packages, nvidia-cudnn-cu12 is missing."
    assert "Cannot dlopen some GPU libraries" in finding.why
    assert finding.fix == INSTALL


def test_all_that_is_missing_is_named():
    """What `pip install tensorflow` without the extra leaves."""
    gone = {"nvidia-cudnn-cu12": [], "nvidia-cublas-cu12": []}
    finding = only(look(pc(packages=gone)), "gpu", "warning")
    assert "nvidia-cublas-cu12 is missing; nvidia-cudnn-cu12 is missing" in finding.finding


@pytest.mark.parametrize(
    ("version", "well"), [("8.9.7.29", False), ("9.2.1", False), ("9.3.0.75", True), ("9.10.2.1", True)]
)
def test_versions_of_nvidias_packages(version, well):
    said = [f for f in look(pc(packages={"nvidia-cudnn-cu12": [Package(version)]})) if "cudnn" in f.finding]
    assert bool(said) != well
    if not well:
        assert f"nvidia-cudnn-cu12 {version} is older than 9.3.0.75" in said[0].finding


def test_another_cudnn_that_comes_first():
    environment = {**GROWTH, "LD_LIBRARY_PATH": "/usr/local/cuda/lib64"}
    finding = only(look(pc(environment=environment)), "gpu", "warning")
    assert "Loaded runtime CuDNN library" in finding.why
    assert finding.fix == "unset LD_LIBRARY_PATH"
    assert troubles(look(pc(environment={**GROWTH, "LD_LIBRARY_PATH": "/opt/ros/lib"}))) == []
    assert troubles(look(pc(environment={**environment, "LD_LIBRARY_PATH": "/usr/lib/wsl/lib"}, release=WSL))) == []


# -- several cards, memory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "hidden"),
    [
        (None, []),
        ("0,1", []),
        ("1,0", []),
        ("0", [1]),
        ("1", [0]),
        ("", [0, 1]),
        ("-1", [0, 1]),
        ("0,7,1", [1]),
        ("GPU-1aaa", [0]),
        ("MIG-1aaa", []),
    ],
)
def test_cards_that_are_hidden(told, hidden):
    environment = GROWTH if told is None else {**GROWTH, "CUDA_VISIBLE_DEVICES": told}
    graphics = _gpu.look(pc(RTX_4090, RTX_3060, environment=environment), fast=False)
    assert [card.index for card in graphics.hidden] == hidden
    said = [f for f in graphics.findings if "hides" in f.finding]
    assert len(said) == bool(hidden)
    if hidden:
        assert said[0].status == "warning"
        assert f"hides {len(hidden)} of 2 cards" in said[0].finding
        assert said[0].fix == "unset CUDA_VISIBLE_DEVICES"
        assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in said[0].why
        assert ("it trains on the processor" in said[0].why) == (len(hidden) == 2)


def test_one_of_two_cards_that_tensorflow_leaves_out():
    log = "I0000 Ignoring visible gpu device (device: 1) with core count: 6. The minimum required count is 8."
    findings = doctor.examine(pc(RTX_4090, RTX_3060, facts=proof("RTX 4090"), errors=log))
    finding = only(findings, "gpu", "problem")
    assert "TensorFlow uses 1 of 2 cards" in finding.finding
    assert "TF_MIN_GPU_MULTIPROCESSOR_COUNT" in only(findings, "log", "warning").fix


def test_a_hidden_card_is_not_expected():
    machine = pc(RTX_4090, RTX_3060, facts=proof("RTX 4090"), environment={**GROWTH, "CUDA_VISIBLE_DEVICES": "0"})
    assert troubles(doctor.examine(machine)) == [("gpu", "warning")]


def test_a_card_that_tensorflow_does_not_reach():
    gone = {"nvidia-cudnn-cu12": []}
    log = "W0000 Cannot dlopen some GPU libraries. Please make sure the missing libraries mentioned above are installed"
    findings = doctor.examine(pc(facts=proof(), packages=gone, errors=log))
    finding = only(findings, "gpu", "problem")
    assert "TensorFlow uses 0 of 1 cards (NVIDIA GeForce RTX 4090)" in finding.finding
    assert "nvidia-cudnn-cu12 is missing" in finding.why
    assert finding.fix == INSTALL
    assert "Cannot dlopen" in only(findings, "log", "warning").finding


JAX = {
    "environment": {**GROWTH, "KERAS_BACKEND": "jax"},
    "module_folder": lambda name: TENSORFLOW if name == "tensorflow" else f"{SITE}/{name}",
}


def test_jax_for_processors_beside_a_card():
    """The wheel of JAX that plain `pip install jax` brings computes on the processor, without a word."""
    log = "W0000 An NVIDIA GPU may be present on this machine, but a CUDA-enabled jaxlib is not installed."
    findings = doctor.examine(pc(packages={"jax": [Package("0.10.2")]}, facts=proof(), errors=log, **JAX))
    said = [f for f in findings if f.area == "gpu" and f.status == "problem"]
    assert "JAX 0.10.2 is the one for processors" in said[0].finding
    assert "JAX uses 0 of 1 cards" in said[1].finding
    install = '.venv/bin/python -m pip install "jax[cuda12]==0.10.2"'
    assert {f.fix for f in said} == {install}
    assert only(findings, "log", "warning").fix == install


def test_jax_on_its_card():
    packages = {"jax": [Package("0.10.2")], "jax-cuda12-plugin": [Package("0.10.2")]}
    findings = doctor.examine(pc(packages=packages, facts=proof("NVIDIA GeForce RTX 4090"), **JAX))
    assert troubles(findings) == []
    assert "jax-cuda12-plugin 0.10.2" in " ".join(f.finding for f in findings if f.area == "gpu")


def test_jax_without_tensorflow():
    """A machine that trains with JAX alone: proved on JAX, with the driver that JAX's CUDA needs."""
    environment = {"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    plugin = {"jax": [Package("0.11.2")], "jax-cuda13-plugin": [Package("0.11.2")]}
    facts = [fact | {"module": "jax"} if fact.get("module") == "tensorflow" else fact for fact in proof("NVIDIA H200")]
    h200 = ("NVIDIA H200", "580.159.04", "9.0", 143771, 1)
    folders = lambda name: None if name == "tensorflow" else f"{SITE}/{name}"  # noqa: E731
    settings = {"environment": environment, "packages": plugin, "module_folder": folders}
    findings = doctor.examine(pc(h200, facts=facts, **settings))
    assert {f.status for f in findings if f.area in ("gpu", "proof")} == {"ok"}
    assert "JAX computes with CUDA 13" in next(f.finding for f in findings if f.area == "gpu")
    assert "need TensorFlow besides" in only(findings, "tensorflow", "warning").why
    assert "JAX 2.21.0 and Keras 3.15.1 start in" in only(findings, "tensorflow", "ok").finding
    old = only(look(pc(("NVIDIA H200", "575.1", "9.0", 143771, 1), **settings)), "gpu", "problem")
    assert "CUDA 13 needs driver 580" in old.why


def test_memory_that_jax_takes_in_advance():
    machine = pc(RTX_4090, packages={"jax-cuda12-plugin": [Package("0.10.2")]}, **JAX)
    finding = only(look(machine), "gpu", "note")
    assert "JAX takes three quarters of the memory of a card" in finding.finding
    assert finding.fix == "export XLA_PYTHON_CLIENT_PREALLOCATE=false"


def test_memory_that_another_process_holds():
    finding = only(look(pc((RTX_4090[0], "550.1", "8.9", 24564, 23000))), "gpu", "warning")
    assert "22.5 of 24.0 GiB" in finding.finding
    assert "another process" in finding.finding
    mine = pc((RTX_4090[0], "550.1", "8.9", 24564, 23000), loaded=frozenset({"tensorflow"}))
    assert "this notebook" in only(look(mine), "gpu", "warning").finding


def test_memory_growth_is_a_note():
    finding = only(look(pc(environment={})), "gpu", "note")
    assert "memory growth is off" in finding.finding
    assert finding.fix == "export TF_FORCE_GPU_ALLOW_GROWTH=true"
