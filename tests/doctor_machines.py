"""Computers that tests describe: a healthy one, and what to change to break it."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from cnnlab.doctor import Finding, Machine, Outcome, Package

GIB = 1024**3
PROJECT = "/home/ann/cnnlab"
SITE = f"{PROJECT}/.venv/lib/python3.12/site-packages"
TENSORFLOW = f"{SITE}/tensorflow"

PYPROJECT = """
[project]
name = "cnnlab"
dependencies = [
    "tensorflow>=2.21,<2.22",
    "keras>=3.12",
    "numpy>=2.0,<2.5",  # a comment
    'tomli; python_version < "3.11"',
]
"""
NEEDS = ("tensorflow<2.22,>=2.21", "keras>=3.12", "numpy<2.5,>=2.0", 'tomli; python_version < "3.11"')
BUILD_INFO = """
build_info = collections.OrderedDict([('cpu_compiler', 'clang'), ('cuda_compute_capabilities', ['sm_60', 'sm_70',
'sm_80', 'sm_89', 'compute_90']), ('cuda_version', '12.5.1'), ('cudnn_version', '9'), ('is_cuda_build', True)])
"""
NVIDIA = (
    'nvidia-cublas-cu12<13.0,>=12.5.3.2; extra == "and-cuda"',
    'nvidia-cudnn-cu12<10.0,>=9.3.0.75; extra == "and-cuda"',
)
PACKAGES = {
    "tensorflow": [Package("2.21.0", ("numpy>=1.26.0", "keras>=3.12", "protobuf>=6.31,<8", *NVIDIA))],
    "keras": [Package("3.15.1", ("numpy", "h5py"))],
    "numpy": [Package("2.4.6")],
    "protobuf": [Package("7.36.2")],
    "h5py": [Package("3.14.0")],
    "cnnlab": [Package("0.1.0", (*NEEDS, 'pytest==9; extra == "dev"'))],
    "pip": [Package("25.0")],
    "nvidia-cublas-cu12": [Package("12.5.3.2")],
    "nvidia-cudnn-cu12": [Package("9.3.0.75")],
}
FILES = {
    f"{PROJECT}/pyproject.toml": PYPROJECT,
    f"{PROJECT}/requirements.txt": "# tested\nkeras==3.15.1\nnumpy==2.4.6 \\\n    --hash=sha256:00\n",
    f"{PROJECT}/.venv/bin/python": "",
    f"{PROJECT}/.venv/share/jupyter/kernels/python3/kernel.json": '{"argv": ["python", "-m", "ipykernel_launcher"]}',
    f"{PROJECT}/.venv/share/jupyter/kernels/cnnlab/kernel.json": json.dumps({"argv": [f"{PROJECT}/.venv/bin/python"]}),
    f"{TENSORFLOW}/python/platform/build_info.py": BUILD_INFO,
    f"{TENSORFLOW}/__init__.py": "",
}


def proof(*cards: str) -> list[dict[str, Any]]:
    """What the proof prints where all is well."""
    facts: list[dict[str, Any]] = []
    for module, version in (("numpy", "2.4.6"), ("tensorflow", "2.21.0"), ("keras", "3.15.1")):
        facts.append({"stage": "import", "module": module})
        facts.append({"stage": "imported", "module": module, "version": version, "seconds": 2.0})
    facts.append({"stage": "devices", "cards": list(cards), "build": {}})
    for device in ["cpu:0", *(f"gpu:{number}" for number in range(len(cards)))]:
        place = f"/job:localhost/replica:0/task:0/device:{device.upper()}"
        facts.append({"stage": "convolution", "device": device})
        facts.append({"stage": "convolved", "device": device, "place": place, "error": 1e-7, "gradient_error": 2e-7})
        facts.append({"stage": "training", "device": device})
        facts.append(
            {
                "stage": "trained",
                "device": device,
                "first": 1.3,
                "last": 0.03,
                "steps": 30,
                "difference": 0.0 if device == "cpu:0" else 3e-6,
                "seconds": 0.5,
            }
        )
    return [*facts, {"stage": "end"}]


def printed(facts: list[dict[str, Any]]) -> str:
    """Facts as the script prints them, between other output."""
    return "noise\n" + "".join(f"\n@cnnlab {json.dumps(fact)}\n" for fact in facts)


def smi(*cards: tuple[str, str, str, int, int]) -> Outcome:
    """nvidia-smi's answer for cards of (name, driver, capability, MiB, MiB used)."""
    rows = [
        f"{index}, {name}, {driver}, {capability}, {total}, {used}, GPU-{index}aaa-bbb"
        for index, (name, driver, capability, total, used) in enumerate(cards)
    ]
    return Outcome(0, "\n".join(rows) + "\n")


RTX_4090 = ("NVIDIA GeForce RTX 4090", "550.54.14", "8.9", 24564, 300)
RTX_3060 = ("NVIDIA GeForce RTX 3060", "550.54.14", "8.6", 12288, 300)
RTX_5090 = ("NVIDIA GeForce RTX 5090", "575.51", "12.0", 32607, 300)


def computer(
    *,
    files: Mapping[str, str | None] | None = None,
    packages: Mapping[str, list[Package]] | None = None,
    environment: Mapping[str, str] | None = None,
    nvidia_smi: Outcome | None = None,
    pip_check: Outcome | None = None,
    run: Callable[..., Outcome] | None = None,
    facts: list[dict[str, Any]] | None = None,
    errors: str = "",
    status: int | None = 0,
    trouble: str = "",
    **fields: Any,
) -> Machine:
    """A healthy Linux PC with the project in /home/ann/cnnlab, changed as told.

    `files` and `packages` are added to the healthy ones; a value of None or [] takes one away.
    """
    present = {path: text for path, text in {**FILES, **(files or {})}.items() if text is not None}
    installed = {**PACKAGES, **(packages or {})}

    def names(folder: str) -> list[str]:
        start = folder.replace("\\", "/").rstrip("/") + "/"
        return sorted({path[len(start) :].split("/")[0] for path in present if path.startswith(start)})

    def fake_run(command: list[str], *, timeout: float, environment: Mapping[str, str] | None = None) -> Outcome:
        del timeout, environment
        if "check" in command:
            return pip_check or Outcome(0, "No broken requirements found.\n")
        if "nvidia-smi" in command[0]:
            return nvidia_smi or Outcome(None, errors="No such file", trouble="missing")
        if any("_proof.py" in word for word in command):
            return Outcome(status, printed(proof() if facts is None else facts), errors, trouble)
        return Outcome(1, errors=f"unexpected command {command}")

    healthy = Machine(
        system="Linux",
        architecture="x86_64",
        release="6.8.0-45-generic",
        c_library="glibc 2.39",
        python=(3, 12, 4),
        kind="",
        executable=f"{PROJECT}/.venv/bin/python",
        prefix=f"{PROJECT}/.venv",
        base_prefix="/usr",
        project=PROJECT,
        folder=f"{PROJECT}/notebooks",
        home="/home/ann",
        temporary="/tmp",
        kernel_folders=(f"{PROJECT}/.venv/share/jupyter/kernels", "/home/ann/.local/share/jupyter/kernels"),
        environment=environment or {},
        in_notebook=False,
        loaded=frozenset(),
        processors=8,
        run=run or fake_run,
        package=lambda name: next(iter(installed.get(name, [])), None),
        module_folder=lambda name: TENSORFLOW if name == "tensorflow" and installed["tensorflow"] else None,
        read=lambda path: present.get(path.replace("\\", "/")),
        names=names,
        which=lambda name: "/usr/bin/nvidia-smi" if name == "nvidia-smi" and nvidia_smi else None,
        disk=lambda path: 200 * GIB,
        memory=lambda: (16 * GIB, 8 * GIB),
        instructions=lambda: frozenset({"sse4_2", "avx", "avx2", "fma"}),
    )
    return dataclasses.replace(healthy, **fields)


def only(findings: list[Finding], area: str, status: str | None = None) -> Finding:
    """The one finding of that area (and status)."""
    found = [f for f in findings if f.area == area and (status is None or f.status == status)]
    assert len(found) == 1, found
    return found[0]


def troubles(findings: list[Finding]) -> list[tuple[str, str]]:
    """(area, status) of all that is worse than a note."""
    return [(f.area, f.status) for f in findings if f.status in ("warning", "problem")]
