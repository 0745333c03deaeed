"""doctor on described computers: Python, system, environment, settings, kernels, packages; and its two faces."""

import ast
import dataclasses
import io
import itertools
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from doctor_machines import FILES, GIB, PROJECT, PYPROJECT, computer, only, troubles

import cnnlab
from cnnlab import doctor
from cnnlab.doctor import Finding, Outcome, Package, _environment, _findings, _machine, _packages, _system
from cnnlab.doctor._table import Report, as_table

ROOT = Path(cnnlab.__file__).parent.parent


def test_a_healthy_computer_has_nothing_to_fix():
    findings = doctor.examine(computer())
    assert {f.status for f in findings} == {"ok"}
    areas = [area for area, _ in itertools.groupby(f.area for f in findings)]
    assert " ".join(areas) == "python system cpu memory disk environment kernel packages gpu tensorflow proof"
    assert all(f.fix == "" for f in findings)


def test_fast_starts_no_process():
    def refuse(*_, **__):
        raise AssertionError("started a process")

    assert {f.status for f in doctor.examine(computer(run=refuse), fast=True)} == {"ok"}


# -- Python and the system -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 10, 14), "problem"), ((3, 11, 0), "ok"), ((3, 13, 9), "ok"), ((3, 14, 0), "problem"), ((4, 0, 0), "problem")],
)
def test_python_versions(version, status):
    finding = _system.check_python(computer(python=version))
    assert finding.status == status
    if status == "problem":
        assert f"{version[0]}.{version[1]}" in finding.finding
        assert "3.11 to 3.13" in finding.why
        assert "python3.12 -m venv .venv" in finding.fix


def test_the_served_pythons_are_those_of_the_project():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    first, beyond = _machine.PYTHONS
    assert told == f">={first[0]}.{first[1]},<{beyond[0]}.{beyond[1]}"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "32-bit"}, "32-bit"),
        ({"kind": "PyPy"}, "PyPy"),
        ({"kind": "free-threaded"}, "free-threaded"),
    ],
)
def test_pythons_of_another_kind(fields, words):
    finding = _system.check_python(computer(**fields))
    assert finding.status == "problem"
    assert words in finding.finding


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"c_library": ""}, "problem", "musl"),
        ({"c_library": "glibc 2.26"}, "problem", "older than 2.27"),
        ({"c_library": "glibc 2.27"}, "ok", "glibc 2.27"),
        ({"release": "4.4.0-19041-Microsoft"}, "warning", "version 1"),
        ({"release": "5.15.153.1-microsoft-standard-WSL2"}, "ok", "in WSL2"),
        ({"release": "5.15-microsoft-standard-WSL2", "project": "/mnt/c/cnnlab"}, "warning", "Windows side"),
        ({"system": "Windows", "release": "11", "architecture": "AMD64"}, "ok", "Windows 11"),
        ({"system": "Windows", "release": "11", "architecture": "ARM64"}, "problem", "on Arm"),
        ({"system": "Darwin", "release": "24.1", "architecture": "arm64"}, "ok", "arm64"),
        ({"system": "Darwin", "release": "20.1", "architecture": "x86_64"}, "problem", "for Intel processors"),
    ],
)
def test_systems(fields, status, words):
    finding = _system.check_system(computer(**fields))
    assert finding.status == status
    assert words in finding.finding


def test_processors():
    check = _system.check_processor
    assert check(computer()).finding == "8 processor cores, with AVX"
    assert (
        check(computer(processors=1, instructions=lambda: frozenset({"avx"}))).finding == "1 processor core, with AVX"
    )
    missing = check(computer(instructions=lambda: frozenset({"sse4_2"})))
    assert missing.status == "problem"
    assert "-cpu host" in missing.fix
    assert check(computer(instructions=lambda: None)).finding == "8 processor cores"
    assert check(computer(architecture="aarch64", instructions=lambda: frozenset())).status == "ok"
    limited = check(computer(files={"/sys/fs/cgroup/cpu.max": "150000 100000\n"}))
    assert "may use 1.5" in limited.finding
    assert "may use" not in check(computer(files={"/sys/fs/cgroup/cpu.max": "max 100000\n"})).finding


@pytest.mark.parametrize(
    ("total", "available", "status"), [(16, 3, "ok"), (16, 2.9, "warning"), (16, 1, "warning"), (16, 0.9, "problem")]
)
def test_memory(total, available, status):
    finding = _system.check_memory(computer(memory=lambda: (total * GIB, int(available * GIB))))
    assert finding.status == status
    assert f"of {total:.1f} GiB" in finding.finding


def test_memory_of_containers_wsl_and_the_unknown():
    limit = {"/sys/fs/cgroup/memory.max": str(2 * GIB), "/sys/fs/cgroup/memory.current": str(GIB // 2)}
    finding = _system.check_memory(computer(files=limit))
    assert finding.finding.startswith("1.5 of 2.0 GiB memory free in this container")
    assert "docker run --memory" in finding.fix
    small = {"memory": lambda: (2 * GIB, GIB)}
    assert ".wslconfig" in _system.check_memory(computer(release="5-microsoft-standard-WSL2", **small)).fix
    assert "batch_size" in _system.check_memory(computer(**small)).fix
    assert _system.check_memory(computer(memory=lambda: None)).status == "note"
    unlimited = {"/sys/fs/cgroup/memory.max": "max\n"}
    assert _system.check_memory(computer(files=unlimited)).status == "ok"


@pytest.mark.parametrize(("free", "status"), [(5, "ok"), (4.9, "warning"), (1, "warning"), (0.9, "problem")])
def test_disks(free, status):
    finding = _system.check_disk(computer(disk=lambda path: int(free * GIB)))
    assert finding.status == status


def test_a_full_disk_names_the_place():
    machine = computer(disk=lambda path: GIB // 2 if path == "/tmp" else 90 * GIB)
    finding = _system.check_disk(machine)
    assert "0.5 GiB for temporary files (/tmp)" in finding.finding
    assert "the project" not in finding.finding
    assert ".venv/bin/python -m pip cache purge" in finding.fix
    assert "cleanmgr" in _system.check_disk(dataclasses.replace(machine, system="Windows")).fix


# -- environment, settings, kernels ----------------------------------------------------------------------------------


def test_another_python_than_the_projects_own():
    machine = computer(prefix="/usr", executable="/usr/bin/python3")
    finding = _environment.check_environment(machine)
    assert finding.status == "warning"
    assert finding.fix == ".venv/bin/python -m cnnlab doctor"
    in_notebook = _environment.check_environment(dataclasses.replace(machine, in_notebook=True))
    assert "--fix-kernel" in in_notebook.fix
    assert "Change Kernel" in in_notebook.fix
    assert machine.install_everything() == ".venv/bin/python -m cnnlab doctor", "not pip into the wrong one"
    assert _environment.check_kernel(machine) == [], "nor a kernel for it"


@pytest.mark.parametrize(
    ("environment", "status", "words"),
    [
        ({}, "note", "without a virtual environment"),
        ({"CONDA_DEFAULT_ENV": "base"}, "note", "base environment of conda"),
        ({"CONDA_DEFAULT_ENV": "cnnlab"}, "ok", "conda environment cnnlab"),
    ],
)
def test_environments_of_other_kinds(environment, status, words):
    gone = {path: None for path in FILES if "/.venv/" in path}
    machine = computer(files=gone, prefix="/usr", executable="/usr/bin/python3", environment=environment)
    finding = _environment.check_environment(machine)
    assert finding.status == status
    assert words in finding.finding


def test_new_environments_in_the_way_of_the_tool_at_hand():
    old = {"python": (3, 9, 0)}
    for tool, words in (("uv", "uv venv --python 3.12"), ("", "python3.12 -m venv")):
        fix = computer(which=lambda name, tool=tool: name if name == tool else None, **old).new_environment()
        assert words in fix
    assert (
        "py -3.12 -m venv" in computer(system="Windows", project="C:\\lab", prefix="C:\\lab\\.venv").new_environment()
    )


KERAS_JSON = "/home/ann/.keras/keras.json"


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("{", "problem", "not valid JSON"),
        ("[]", "problem", "not valid JSON"),
        ('{"image_data_format": "channels_first"}', "problem", "channels_first"),
        ('{"floatx": "float16"}', "problem", "float16"),
        ('{"backend": "theano"}', "problem", "theano"),
        ('{"backend": "torch"}', "problem", "is not installed"),
    ],
)
def test_keras_settings(text, status, words):
    finding = only(_environment.check_settings(computer(files={KERAS_JSON: text})), "settings")
    assert finding.status == status
    assert words in finding.finding
    assert finding.fix


def test_keras_settings_that_are_well():
    standard = '{"backend": "tensorflow", "image_data_format": "channels_last", "floatx": "float32"}'
    assert _environment.check_settings(computer(files={KERAS_JSON: standard})) == []
    elsewhere = computer(files={"/k/keras.json": "{"}, environment={"KERAS_HOME": "/k"})
    assert "/k/keras.json" in only(_environment.check_settings(elsewhere), "settings").finding


def test_a_backend_that_is_there_is_a_note():
    machine = computer(environment={"KERAS_BACKEND": "jax"}, module_folder=lambda name: "/site/" + name)
    finding = only(_environment.check_settings(machine), "settings", "note")
    assert "Keras computes with jax (KERAS_BACKEND)" in finding.finding


def test_variables_that_swap_libraries():
    assert _environment.check_variables(computer(environment={"PYTHONPATH": PROJECT, "TF_USE_LEGACY_KERAS": "0"})) == []
    found = _environment.check_variables(computer(environment={"PYTHONPATH": "/opt/ros:", "TF_USE_LEGACY_KERAS": "1"}))
    assert [f.status for f in found] == ["problem", "warning"]
    assert "/opt/ros" in found[1].finding
    assert found[1].fix == "unset PYTHONPATH"
    windows = computer(system="Windows", environment={"TF_USE_LEGACY_KERAS": "True"})
    assert _environment.check_variables(windows)[0].fix == "Remove-Item Env:TF_USE_LEGACY_KERAS"


def test_files_that_hide_libraries():
    folder = f"{PROJECT}/notebooks"
    harmless = {f"{folder}/test.py": "", f"{folder}/mine.py": "", f"{folder}/keras.ipynb": ""}
    assert _environment.check_shadows(computer(files=harmless)) == []
    finding = only(_environment.check_shadows(computer(files={f"{folder}/random.py": ""})), "environment")
    assert finding.status == "warning"
    finding = only(_environment.check_shadows(computer(files={f"{folder}/tensorflow.py": ""})), "environment")
    assert finding.status == "problem"
    assert finding.fix == f"mv {folder}/tensorflow.py {folder}/my_tensorflow.py"


USER_KERNELS = "/home/ann/.local/share/jupyter/kernels"
OWN_KERNEL = f"{PROJECT}/.venv/share/jupyter/kernels/cnnlab/kernel.json"


def spec(python: str) -> str:
    return json.dumps({"argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]})


def test_no_kernel_is_a_note_with_the_command():
    finding = only(_environment.check_kernel(computer(files={OWN_KERNEL: None})), "kernel")
    assert finding.status == "note"
    assert finding.fix == ".venv/bin/python -m cnnlab doctor --fix-kernel"
    in_notebook = computer(files={OWN_KERNEL: None}, in_notebook=True)
    assert only(_environment.check_kernel(in_notebook), "kernel").status == "ok"


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        (spec("/home/ann/old/.venv/bin/python"), "problem", "does not exist any more"),
        (spec("/usr/bin/python3"), "warning", "is not this environment"),
        ("{", "problem", "does not exist any more"),
        ('{"argv": []}', "problem", "does not exist any more"),
        ('{"argv": ' + "[" * 100_000, "problem", "does not exist any more"),
        (spec(f"{PROJECT}/.venv/bin/python3"), "ok", "starts this environment"),
    ],
)
def test_stale_kernels(text, status, words):
    files = {OWN_KERNEL: None, f"{USER_KERNELS}/cnnlab/kernel.json": text, "/usr/bin/python3": ""}
    finding = only(_environment.check_kernel(computer(files=files)), "kernel")
    assert finding.status == status
    assert words in finding.finding


def test_a_default_kernel_that_leads_elsewhere():
    files = {
        f"{PROJECT}/.venv/share/jupyter/kernels/python3/kernel.json": None,
        f"{USER_KERNELS}/python3/kernel.json": spec("/usr/bin/python3"),
        "/usr/bin/python3": "",
    }
    finding = only(_environment.check_kernel(computer(files=files)), "kernel")
    assert finding.status == "warning"
    assert "'python3'" in finding.finding


def test_the_kernel_is_registered_for_real(monkeypatch, tmp_path):
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    kernel = tmp_path / "kernels" / "cnnlab" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(spec("/home/ann/old/.venv/bin/python"))
    machine = dataclasses.replace(_machine.here(), project=str(tmp_path))
    assert only(_environment.check_kernel(machine), "kernel").status == "problem"
    finding = doctor.fix_kernel(machine)
    assert finding.status == "ok"
    assert "replaces the one that started /home/ann/old/.venv/bin/python" in finding.finding
    told = json.loads(kernel.read_text())
    assert (told["argv"][0], told["display_name"]) == (sys.executable, "Python (cnnlab)")
    assert only(_environment.check_kernel(machine), "kernel").status == "ok"


def test_a_kernel_that_cannot_be_registered():
    calls = []

    def run(command, **_):
        calls.append(command)
        return Outcome(0) if "--sys-prefix" in command else Outcome(1, errors="PermissionError: read-only home")

    assert doctor.fix_kernel(computer(run=run, files={OWN_KERNEL: None})).status == "ok"
    assert [command[4] for command in calls] == ["--user", "--sys-prefix"]
    missing = computer(run=lambda *_, **__: Outcome(1, errors="python: No module named ipykernel"))
    finding = doctor.fix_kernel(missing)
    assert finding.status == "problem"
    assert finding.fix == ".venv/bin/python -m pip install ipykernel"
    hung = doctor.fix_kernel(computer(run=lambda *_, **__: Outcome(None, trouble="timeout")))
    assert "did not answer" in hung.finding


# -- packages --------------------------------------------------------------------------------------------------------


def check_packages(**changes) -> list[Finding]:
    return _packages.check(computer(packages=changes))


def test_missing_packages():
    finding = check_packages(keras=[])[0]
    assert finding.status == "problem"
    assert finding.finding == "1 of 3 packages are missing: keras."
    assert finding.fix == ".venv/bin/python -m pip install -r requirements.txt"


@pytest.mark.parametrize("pyproject", [PYPROJECT, None], ids=["checkout", "metadata"])
@pytest.mark.parametrize(
    ("version", "status"), [("1.26.4", "problem"), ("2.0", "ok"), ("2.4.9", "ok"), ("2.5", "problem")]
)
def test_versions_on_both_sides_of_the_range(version, status, pyproject):
    changes = {"packages": {"numpy": [Package(version)]}, "files": {f"{PROJECT}/pyproject.toml": pyproject}}
    finding = only(doctor.examine(computer(**changes), fast=True), "packages")
    assert finding.status == status
    if status == "problem":
        assert f"numpy {version} (needs <2.5,>=2.0)" in finding.finding
        assert finding.fix == ".venv/bin/python -m pip install -r requirements.txt"


def test_conflicts_are_pips_own_words():
    said = "tensorflow 2.21.0 has requirement protobuf<8,>=6.31, but you have protobuf 5.29.0.\nother words\n"
    (finding,) = _packages.check_conflicts(computer(pip_check=Outcome(1, said)))
    assert finding.finding.endswith(
        "tensorflow 2.21.0 has requirement protobuf<8,>=6.31, but you have protobuf 5.29.0."
    )
    assert finding.fix == ".venv/bin/python -m pip install -r requirements.txt"
    said = "pandas 3.1 requires numpy, which is not installed.\n" * 7
    (finding,) = _packages.check_conflicts(computer(pip_check=Outcome(1, said)))
    assert "and 2 more" in finding.finding and "numpy.dtype size changed" in finding.why
    uv = "The package `keras` requires `h5py`, but it's not installed\n"
    machine = computer(packages={"pip": []}, which=lambda name: name if name == "uv" else None)
    machine = dataclasses.replace(machine, run=lambda *_, **__: Outcome(1, "", uv))
    assert "requires `h5py`" in _packages.check_conflicts(machine)[0].finding
    assert _packages.check_conflicts(computer()) == []
    assert _packages.check_conflicts(computer(packages={"pip": []})) == []
    assert _packages.check_conflicts(computer(pip_check=Outcome(None, trouble="timeout"))) == []


def test_rivals():
    both = check_packages(**{"tensorflow-cpu": [Package("2.21.0")]})
    finding = only(both, "packages", "warning")
    assert "tensorflow and tensorflow-cpu are both installed" in finding.finding
    assert "uninstall -y tensorflow tensorflow-cpu" in finding.fix
    instead = check_packages(tensorflow=[], **{"tensorflow-cpu": [Package("2.21.0")]})
    assert instead[0].status == "ok", "a rival alone stands in"


def test_requirements_for_other_machines_do_not_count():
    text = PYPROJECT.replace('"numpy', '"numpy<2; python_version < \'3.12\'",\n    "numpy')
    assert [f.status for f in _packages.check(computer(files={f"{PROJECT}/pyproject.toml": text}))] == ["ok"]
    old = computer(files={f"{PROJECT}/pyproject.toml": text}, python=(3, 11, 0))
    assert "needs <2" in only(_packages.check(old), "packages").finding


def test_a_requirement_that_git_pull_brought_is_not_in_the_metadata_yet():
    text = PYPROJECT.replace('"keras', '"cleanlab>=2.9",\n    "keras')
    finding = only(_packages.check(computer(files={f"{PROJECT}/pyproject.toml": text})), "packages")
    assert (finding.status, finding.finding) == ("problem", "1 of 4 packages are missing: cleanlab.")


@pytest.mark.parametrize("text", [None, "", 'name = "other"', "[project", '[project]\nname = "other"'])
def test_the_installed_metadata_stand_in_for_pyproject(text):
    changes = {"files": {f"{PROJECT}/pyproject.toml": text}}
    finding = only(_packages.check(computer(packages={"keras": []}, **changes)), "packages")
    assert finding.finding == "1 of 3 packages are missing: keras."
    found = _packages.check(computer(packages={"cnnlab": []}, **changes))
    assert [f.status for f in found] == ["warning"]
    assert "could not be read" in found[0].finding


def test_the_command_that_brings_everything_is_the_checkouts_or_pips():
    assert computer().install_everything() == ".venv/bin/python -m pip install -r requirements.txt"
    machine = computer(files={f"{PROJECT}/requirements.txt": None})
    assert machine.install_everything() == ".venv/bin/python -m pip install --upgrade cnnlab"


def test_the_project_itself_should_be_installed():
    finding = only(check_packages(cnnlab=[]), "packages", "warning")
    assert "not installed in this environment" in finding.finding
    assert finding.fix.splitlines() == [
        f".venv/bin/python -m pip install {x}" for x in ("-r requirements.txt", "--no-deps -e .")
    ]


def test_what_is_missing_is_named_also_where_the_project_is_not_installed():
    found = check_packages(cnnlab=[], keras=[])
    assert only(found, "packages", "problem").finding == "1 of 3 packages are missing: keras."
    assert "not installed in this environment" in only(found, "packages", "warning").finding


def test_without_packaging_names_are_enough(monkeypatch):
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    finding = only(_packages.check(computer(packages={"keras": [], "numpy": [Package("1.0")]})), "packages")
    assert finding.finding == "1 of 3 packages are missing: keras."


def test_pip_commands_fit_the_environment():
    assert computer().pip("install x") == ".venv/bin/python -m pip install x"
    bare = {"packages": {"pip": []}}
    uv = computer(which=lambda name: name if name == "uv" else None, **bare)
    assert uv.pip("install -r requirements.txt") == "uv pip install --python .venv/bin/python -r requirements.txt"
    assert computer(**bare).pip("install x").startswith(".venv/bin/python -m ensurepip --upgrade\n")


def test_variables_are_set_where_it_helps():
    terminal, notebook = computer(), computer(in_notebook=True)
    assert terminal.set_variable("A", "1") == "export A=1"
    assert terminal.set_variable("A", None) == "unset A"
    assert dataclasses.replace(terminal, system="Windows").set_variable("A", "1") == '$env:A = "1"'
    assert notebook.set_variable("A", "1").endswith("in the first cell:\n%env A=1")
    assert notebook.set_variable("A", None).endswith("import os; os.environ.pop('A', None)")
    assert notebook.set_variable("PYTHONPATH", None) == "In the terminal, before Jupyter starts:\nunset PYTHONPATH"


def test_commands_survive_spaces():
    spaced = computer(project="/home/a b/lab", executable="/home/a b/lab/.venv/bin/python")
    assert spaced.python_command == ".venv/bin/python"
    outside = computer(executable="/opt/my python/bin/python")
    assert outside.python_command == "'/opt/my python/bin/python'"
    windows = computer(system="Windows", project="C:\\lab", executable="C:\\Program Files\\Python\\python.exe")
    assert windows.python_command == '"C:\\Program Files\\Python\\python.exe"'
    own = computer(system="Windows", project="C:\\lab", executable="c:\\lab\\.venv\\Scripts\\python.exe")
    assert own.python_command == ".venv\\Scripts\\python.exe"


# -- the two faces: table and text -----------------------------------------------------------------------------------

SAMPLE = [
    Finding("python", "ok", "Python 3.12.4, 64-bit"),
    Finding("gpu", "problem", "word " * 60, "why " * 60, "Do this first:\n" + "pip install " + "x" * 120),
    Finding("kernel", "note", "a note", "a reason", ""),
    Finding("disk", "warning", "<script>alert(1)</script>", "a & b", "one\ntwo"),
]


def test_a_finding_of_unknown_status_is_refused():
    with pytest.raises(ValueError, match=r"must be one of ok, note, warning, problem\. Received: 'bad'"):
        Finding("x", "bad", "")


def test_the_table_is_worst_first():
    table = as_table(SAMPLE)
    assert list(table["status"]) == ["problem", "warning", "note", "ok"]
    assert table["status"].dtype.ordered
    assert list(table[table["status"] >= "warning"]["area"]) == ["gpu", "disk"]
    assert isinstance(table, pd.DataFrame)


def test_the_table_shows_whole_texts_and_escapes_them():
    html = as_table(SAMPLE)._repr_html_()
    assert "word " * 50 in html
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "one\ntwo" in html
    chosen = as_table(SAMPLE)[["area", "finding"]].head(1)
    assert isinstance(chosen, Report)
    assert "word " * 50 in chosen._repr_html_()
    assert "why" not in chosen._repr_html_()


def test_a_table_made_from_a_report_looks_like_pandas():
    counted = as_table(SAMPLE).assign(count=1).groupby("area")[["count"]].sum()
    assert counted._repr_html_() == pd.DataFrame(counted)._repr_html_()


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_text_wraps_and_leaves_commands_whole(width):
    lines = _findings.as_text(SAMPLE, width=width).splitlines()
    command = [line for line in lines if "pip install" in line]
    assert len(command) == 1
    assert command[0].endswith("x" * 120)
    assert max(len(line) for line in lines if line not in command) <= width
    assert lines[0] == "ok       python  Python 3.12.4, 64-bit"
    starts = [line.split()[0] for line in lines if line[:1].strip()]
    assert starts == ["ok", "note", "warning", "problem"], "the worst is what the screen ends with"
    prose = next(line for line in lines if "Do this first:" in line)
    assert prose.index("Do this") == command[0].index("pip install") == len("problem  python  ")


def test_the_summary_counts():
    assert _findings.summary(SAMPLE) == "1 problem, 1 warning, 1 note, 1 ok"
    assert _findings.summary(SAMPLE * 2) == "2 problems, 2 warnings, 2 notes, 2 ok"


def test_every_trouble_has_a_reason_and_a_remedy():
    """Over many broken machines at once: nothing worse than a note stands without why and fix."""
    broken = [
        computer(python=(3, 9, 1)),
        computer(c_library="", instructions=lambda: frozenset(), memory=lambda: (GIB, GIB // 2), disk=lambda path: GIB),
        computer(packages={"keras": [], "cnnlab": []}, files={KERAS_JSON: '{"floatx": "float64"}'}),
        computer(status=-4, facts=[{"stage": "import", "module": "tensorflow"}]),
        computer(system="Windows", architecture="ARM64"),
    ]
    for machine in broken:
        findings = doctor.examine(machine)
        assert troubles(findings)
        for finding in findings:
            if finding.status in ("warning", "problem"):
                assert finding.why, finding
                assert finding.fix, finding


# -- the command, for real -------------------------------------------------------------------------------------------


def start(code: str, *flags: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *flags, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=200, **options
    )


def within(limit: float, work):
    """The result of `work`, which must come within `limit` seconds in one of six tries: the machine may be shared."""
    seconds = []
    while len(seconds) < 6 and min(seconds, default=limit) >= limit:
        begin = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - begin)
    assert min(seconds) < limit, seconds
    return result


FAST = "import sys; from cnnlab import doctor; status = doctor.main(['--fast']); "


def test_fast_is_fast_and_loads_neither_tensorflow_nor_pandas():
    code = FAST + "print(sorted({'tensorflow', 'keras', 'pandas', 'numpy'} & set(sys.modules))); sys.exit(status)"
    done = within(2, lambda: start(code))
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr
    assert "leave out --fast for the proof" in done.stdout


def test_fast_stays_fast_when_the_driver_hangs(tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexec sleep 30\n")
    tool.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = within(2, lambda: start(FAST, env=environment))
    assert "nvidia-smi did not answer" in done.stdout


def test_a_python_without_any_package_gets_words():
    code = f"import sys; sys.path = [{str(ROOT)!r}] + [p for p in sys.path if 'site-packages' not in p]\n"
    done = start(code + "from cnnlab import doctor; sys.exit(doctor.main([]))", "-I", "-S")
    assert done.returncode == 1, done.stderr
    assert "TensorFlow is not installed" in done.stdout
    assert "packages are missing: tensorflow" in " ".join(done.stdout.split())
    assert done.stderr == ""


@pytest.mark.parametrize("path", sorted(Path(doctor.__file__).parent.glob("*.py")), ids=lambda path: path.name)
def test_old_pythons_can_read_it(path):
    """A Python that is too old must be told so, in place of a SyntaxError."""
    source = path.read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 9))
    assert "from __future__ import annotations" in source


def test_main_prints_and_returns(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "here", lambda: computer())
    assert doctor.main([]) == 0
    out = capsys.readouterr().out
    assert "proof" in out
    assert "Type the commands" not in out
    monkeypatch.setattr(doctor, "here", lambda: computer(python=(3, 14, 1)))
    assert doctor.main(["--fast"]) == 1
    assert f"Type the commands in {PROJECT}" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "here", lambda: computer(run=lambda *_, **__: Outcome(0)))
    assert doctor.main(["--fix-kernel"]) == 0
    assert "now starts" in " ".join(capsys.readouterr().out.split())


def test_a_terminal_that_lacks_signs_does_not_stop_it(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    doctor._write("“ok” → ±")
    sys.stdout.flush()
    assert raw.getvalue() == b"?ok? ? ?\n"


def test_the_report_of_this_machine_in_full():
    """The Must of the room: on this very computer the convolution equals numpy's and the tiny CNN learns."""
    table = doctor.report()
    proofs = table[table["area"] == "proof"]
    assert list(proofs["status"]) == ["ok", "ok"], table.to_string()
    assert "equal numpy's" in proofs["finding"].iloc[0]
    assert (table.loc[table["area"] == "tensorflow", "status"] == "ok").all()
    assert "declared packages are there" in " ".join(table["finding"])


@pytest.mark.parametrize("status", ["warning", "problem"])
@pytest.mark.parametrize("said", [{"why": "a reason"}, {"fix": "a command"}, {}])
def test_what_is_wrong_comes_with_why_and_fix(status, said):
    with pytest.raises(ValueError, match="expects `why` and `fix`"):
        Finding("gpu", status, "something", **said)


@pytest.mark.parametrize("quota", ["100000 max", "100000 0", "100000", "max 100000"])
def test_a_quota_that_is_none_is_no_obstacle(quota):
    assert "container" not in _system.check_processor(computer(files={"/sys/fs/cgroup/cpu.max": quota})).finding


@pytest.mark.parametrize("taken", ["max", "", "-1", None])
def test_memory_that_a_container_does_not_say_is_no_obstacle(taken):
    files = {"/sys/fs/cgroup/memory.max": str(8 * GIB), "/sys/fs/cgroup/memory.current": taken}
    assert "8.0 GiB memory free in this container" in _system.check_memory(computer(files=files)).finding


def test_a_c_library_of_a_distribution_is_read():
    assert _system.check_system(computer(c_library="glibc 2.39-0ubuntu8")).status == "ok"


def test_checks_and_findings_fit_together():
    """Every finding of the file is one that a check names, and every one that a check names is in the file."""
    words = _findings._words()
    written = [name for name in words.sections() if name != "texts"]
    code = "".join(path.read_text(encoding="utf-8") for path in Path(doctor.__file__).parent.glob("_*.py"))
    named = [re.sub(r"\{\w+\}", r"\\w+", name) for name in re.findall(r'"([\w{}]+\.[\w{}]+)"', code)]
    assert [name for name in written if not any(re.fullmatch(pattern, name) for pattern in named)] == []
    asked = [re.sub(r"\{\w+\}", r"\\w+", name) for name in re.findall(r'found\(\s*machine,\s*f?"(.+?)"', code)]
    assert [each for each in asked if not any(re.fullmatch(each, name) for name in written)] == []
