"""TensorFlow and Keras, started in a process of their own: does the import succeed, are the numbers right?"""

from __future__ import annotations

import json
import re
import signal
from dataclasses import dataclass, field
from typing import Any

from cnnlab.doctor import _logs
from cnnlab.doctor._findings import Finding
from cnnlab.doctor._graphics import Graphics, install_gpu
from cnnlab.doctor._machine import SCRIPTS, Machine, Outcome
from cnnlab.doctor._packages import provider

MARK = "@cnnlab "
START = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"  # keeps the script's folder off sys.path

# Packages with compiled parts, by the name one imports; the light ones among all that the project declares.
COMPILED = {
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "scikit-learn": "sklearn",
    "pillow": "PIL.Image",
    "simplejpeg": "simplejpeg",
    "opencv-python-headless": "cv2",
    "matplotlib": "matplotlib.pyplot",
    "cleanlab": "cleanlab",
    "imagehash": "imagehash",
    "imbalanced-learn": "imblearn",
    "fairlearn": "fairlearn.metrics",
    "ipywidgets": "ipywidgets",
    "ai-edge-litert": "ai_edge_litert.interpreter",
}
AFTERWARDS = {"keras-tuner": "keras_tuner", "tensorflow-datasets": "tensorflow_datasets"}

# How far a device may be from numpy, and from the processor after training: float32 with other orders of summing.
CONVOLUTION_LIMIT = 1e-4
TRAINING_LIMIT = 1e-2

CRASHES = {
    "SIGILL": (
        "an illegal instruction: the processor lacks an instruction that the package was compiled with (AVX)",
        "In a virtual machine set the processor type to “host”, or take a build for older processors:\n"
        "conda install -c conda-forge tensorflow",
    ),
    "SIGSEGV": (
        "a segmentation fault: files of two versions are mixed, or a library of the system does not fit",
        "{pip install --force-reinstall --no-cache-dir tensorflow}",
    ),
    "SIGABRT": (
        "an abort: a check inside the library failed",
        "{pip install --force-reinstall --no-cache-dir tensorflow}",
    ),
    "SIGBUS": (
        "a bus error: a file that is being read was cut short, usually by a full disk or a network drive",
        "{pip install --force-reinstall --no-cache-dir tensorflow}",
    ),
    "SIGKILL": ("a kill by the system, almost always because memory ended", "Close other notebooks and programs."),
}
# The same on Windows, which returns an NTSTATUS.
WINDOWS_CRASHES = {0xC000001D: "SIGILL", 0xC0000005: "SIGSEGV", 0xC0000409: "SIGABRT", 0xC0000017: "SIGKILL"}


@dataclass
class Run:
    """One run of the script and the facts that it printed."""

    outcome: Outcome
    facts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def step(self) -> dict[str, Any]:
        """The last thing that was begun."""
        return self.facts[-1] if self.facts else {"stage": "start"}

    @property
    def complete(self) -> bool:
        """Whether the script came to its end."""
        return self.step["stage"] == "end"

    def stages(self, *names: str) -> list[dict[str, Any]]:
        """The facts of these stages."""
        return [fact for fact in self.facts if fact["stage"] in names]


def start(machine: Machine, modules: list[str], *, prove: bool, timeout: float) -> Run:
    """Runs the script with this machine's Python and waits for its end."""
    request = {"modules": modules, "prove": prove, "afterwards": _present(machine, AFTERWARDS)}
    environment = {
        **machine.environment,
        "TF_CPP_MIN_LOG_LEVEL": "0",  # the log lines are read, not shown
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # the proof leaves the card's memory to whoever holds it
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "NVIDIA_TF32_OVERRIDE": "0",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONIOENCODING": "utf-8",
        "MPLBACKEND": "Agg",
    }
    command = [machine.executable, "-c", START, str(SCRIPTS / "_proof.py"), json.dumps(request)]
    outcome = machine.run(command, timeout=timeout, environment=environment)
    facts = [json.loads(line[len(MARK) :]) for line in outcome.output.splitlines() if line.startswith(MARK)]
    return Run(outcome, facts)


def _present(machine: Machine, modules: dict[str, str]) -> list[str]:
    return [module for name, module in modules.items() if provider(machine, name)]


# -- the other packages ----------------------------------------------------------------------------------------------


def check_imports(machine: Machine, *, timeout: float) -> list[Finding]:
    """Imports each compiled package, going on behind one that ends the process."""
    waiting = _present(machine, COMPILED)
    found: list[Finding] = []
    broken: dict[str, list[str]] = {}  # one fault is passed on by every package that imports the faulty one
    count = len(waiting)
    while waiting:
        run = start(machine, waiting, prove=False, timeout=timeout)
        for fact in run.stages("broken"):
            broken.setdefault(fact["error"], []).append(fact["module"])
        if run.complete:
            break
        found.append(_ended(machine, run, timeout))
        if run.outcome.trouble or run.step.get("module") not in waiting:
            break
        waiting = waiting[waiting.index(run.step["module"]) + 1 :]
    found += [_broken_import(machine, names, error) for error, names in broken.items()]
    return found or [Finding("packages", "ok", f"{count} compiled packages import without error")] * bool(count)


def _broken_import(machine: Machine, names: list[str], words: str) -> Finding:
    """Imports that ended with one and the same exception."""
    name, others = names[0], ", ".join(names[1:])
    cause = _logs.import_error(words)
    last = [line for line in words.splitlines() if line.strip()]
    quoted = (
        last[0] if len(last) < 2 or cause is None else next((x for x in last if re.search(cause.pattern, x)), last[0])
    )
    return Finding(
        "tensorflow" if name in ("tensorflow", "keras") else "packages",
        "problem",
        f"`import {name}` fails{', and with it ' + others if others else ''}: {quoted[:300]}",
        f"Cause: {cause.meaning}."
        if cause
        else "The package is there but cannot be loaded; nothing that uses it runs.",
        _logs.mend(machine, cause.fix if cause else "{everything}"),
    )


def _ended(machine: Machine, run: Run, timeout: float) -> Finding:
    """A process that ended, or was stopped, before its last line."""
    doing = {
        "import": f"importing {run.step.get('module')}",
        "convolution": f"computing a convolution on {run.step.get('device')}",
        "convolved": f"computing a convolution on {run.step.get('device')}",
        "training": f"training on {run.step.get('device')}",
        "devices": "looking at the devices",
    }.get(run.step["stage"], f"taking the step after “{run.step.get('module') or run.step['stage']}”")
    area = (
        "proof"
        if "device" in run.step
        else "tensorflow"
        if run.step.get("module") in ("tensorflow", "keras")
        else "packages"
    )
    if run.outcome.trouble == "timeout":
        slow = "gpu" in str(run.step.get("device", ""))
        return Finding(
            area,
            "problem",
            f"Stopped after {timeout:.0f} s while {doing}.",
            "The driver may be compiling code for a card that this TensorFlow does not know, or the card hangs."
            if slow
            else "Usually a slow disk: a network drive, a folder that a virus scanner or a cloud service watches.",
            f"{machine.python_command} -m cnnlab doctor --timeout 1800"
            if slow
            else "Move the project to a local disk and make .venv again there.",
        )
    if run.outcome.trouble == "missing":
        return Finding("python", "problem", f"{machine.executable} cannot be started: {run.outcome.errors}", "", "")
    name = crash_name(run.outcome.status)
    meaning, fix = CRASHES.get(name, ("", ""))
    known = [
        m for line in run.outcome.errors.splitlines() if (m := _logs.meaning_of(line, has_card=True)) and not m.harmless
    ]
    cause = _logs.import_error(run.outcome.errors)
    if known:
        meaning, fix = f"{meaning or 'the process ended'}; its log says: {known[-1].meaning}", known[-1].fix or fix
    elif not meaning and cause:
        meaning, fix = cause.meaning, cause.fix
    last = (run.outcome.errors.strip().splitlines() or ["no message"])[-1]
    return Finding(
        area,
        "problem",
        f"The process ended while {doing} ({name}).",
        f"Cause: {meaning}." if meaning else f"Its last words: {last[:300]}",
        _logs.mend(machine, fix or "{everything}"),
    )


def crash_name(status: int | None) -> str:
    """SIGILL for -4 (POSIX), for 132 (a shell's way) and for Windows's number; otherwise `exit status 3`."""
    if status is None:
        return "not started"
    if status & 0xFFFFFFFF in WINDOWS_CRASHES:
        return WINDOWS_CRASHES[status & 0xFFFFFFFF]
    number = -status if status < 0 else status - 128
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"exit status {status}"


# -- TensorFlow ------------------------------------------------------------------------------------------------------


def check(machine: Machine, graphics: Graphics, run: Run, *, timeout: float) -> list[Finding]:
    """What the run of TensorFlow says: import, log lines, devices, the proof."""
    found = [_broken_import(machine, [fact["module"]], fact["error"]) for fact in run.stages("broken")]
    imported = {fact["module"]: fact for fact in run.stages("imported")}
    if "tensorflow" in imported and "keras" in imported:
        found.append(_imported(machine, imported))
    if not run.complete:
        found.append(_ended(machine, run, timeout))
    has_card = bool(graphics.cards) and len(graphics.hidden) < len(graphics.cards)
    found += check_log(machine, run.outcome.errors, has_card=has_card)
    found += _check_cards(machine, graphics, run)
    return found + [finding for fact in run.facts for finding in _proved(machine, fact)]


def check_missing(machine: Machine) -> list[Finding]:
    """Says that TensorFlow is not there, without trying; empty where it is."""
    if machine.module_folder("tensorflow"):
        return []
    return [
        Finding(
            "tensorflow",
            "problem",
            f"TensorFlow is not installed in this environment ({machine.prefix}).",
            "Nothing can be trained. Often it is installed, but in another environment than the one this runs in.",
            machine.install_everything(),
        )
    ]


def _imported(machine: Machine, imported: dict[str, dict[str, Any]]) -> Finding:
    seconds = sum(fact["seconds"] for fact in imported.values())
    versions = f"TensorFlow {imported['tensorflow']['version']} and Keras {imported['keras']['version']}"
    text = f"{versions} start in {seconds:.1f} s"
    if seconds < 60:
        return Finding("tensorflow", "ok", text)
    return Finding(
        "tensorflow",
        "note",
        f"{text}.",
        "The first start after an installation or a restart reads a gigabyte from disk; later ones take seconds. Where "
        "it stays so, the environment lies on a slow disk or a virus scanner reads along.",
    )


def check_log(machine: Machine, text: str, *, has_card: bool) -> list[Finding]:
    """Names the harmless log lines as harmless, and the others by what mends them."""
    harmless: dict[str, str] = {}
    serious: dict[str, tuple[str, str]] = {}
    unknown = []
    for line in text.splitlines():
        meaning = _logs.meaning_of(line, has_card=has_card)
        if meaning is None:
            unknown += [line.strip()] if _logs.troubling(line) else []
        elif meaning.harmless:
            harmless[meaning.name] = meaning.meaning
        else:
            serious[meaning.meaning] = (line.strip(), meaning.fix)
    found = [
        Finding("log", "warning", f"TensorFlow logs “{_short(line)}”", f"That is: {words}.", _logs.mend(machine, fix))
        for words, (line, fix) in serious.items()
    ]
    if unknown:
        found.append(
            Finding(
                "log",
                "note",
                "TensorFlow logs, as errors: " + "; ".join(f"“{_short(line)}”" for line in dict.fromkeys(unknown[:3])),
                "Not known here. As long as the proof below holds, training works.",
            )
        )
    if harmless:
        found.append(
            Finding(
                "log",
                "note",
                "Harmless log lines: " + "; ".join(f"“{name}” ({words})" for name, words in harmless.items()) + ".",
                "TensorFlow prints them at start, some marked E for error. Nothing is to be done; cnnlab's own rooms "
                "hide them.",
            )
        )
    return found


def _short(line: str) -> str:
    line = re.sub(r"^(\d{4}-\d\d-\d\d [\d:.]+: )?[IWEF]\d* ?[\d.:]*\s*\d*\s*", "", line)
    return line if len(line) <= 160 else line[:157] + "…"


def _check_cards(machine: Machine, graphics: Graphics, run: Run) -> list[Finding]:
    """Cards that the driver lists and TensorFlow does not use."""
    devices = run.stages("devices")
    if not devices or machine.windows or machine.system == "Darwin":
        return []
    seen = len(devices[0]["cards"])
    expected = len(graphics.cards) - len(graphics.hidden)
    if seen >= expected:
        return []
    listed = ", ".join(card.name for card in graphics.cards if card not in graphics.hidden)
    reason = (
        f"The reason: {', '.join(graphics.missing)} does not load."
        if graphics.missing
        else "The driver answers and its libraries load, as far as was looked; TensorFlow's log lines name the reason."
    )
    return [
        Finding(
            "gpu",
            "problem",
            f"TensorFlow uses {seen} of {expected} cards ({listed}).",
            f"Training {'uses the processor, often ten times slower' if not seen else 'leaves a card idle'}. {reason}",
            install_gpu(machine),
        )
    ]


def _proved(machine: Machine, fact: dict[str, Any]) -> list[Finding]:
    """One fact of the proof in words."""
    stage, device = fact["stage"], fact.get("device", "")
    name = {"cpu:0": "the processor"}.get(device, f"card {device.partition(':')[2]}")
    reinstall = _logs.mend(machine, "{pip install --force-reinstall --no-cache-dir tensorflow keras}")
    if stage == "failed":
        known = _logs.meaning_of(fact["error"].replace("\n", " "), has_card=True)
        return [
            Finding(
                "proof",
                "problem",
                f"Training on {name} fails: {fact['error'].splitlines()[0][:300]}",
                f"Cause: {known.meaning}." if known else "The device is there, but computing on it does not work.",
                _logs.mend(machine, known.fix) if known and known.fix else reinstall,
            )
        ]
    if stage == "convolved":
        worst = max(fact["error"], fact["gradient_error"])
        if worst <= CONVOLUTION_LIMIT and _placed(fact):
            return [
                Finding(
                    "proof",
                    "ok",
                    f"a convolution and its gradient on {name} equal numpy's to {worst:.0e} of the largest value",
                )
            ]
        return [
            Finding(
                "proof",
                "problem",
                f"A convolution on {name} differs from numpy's by {fact['error']:.1e}, its gradient by "
                f"{fact['gradient_error']:.1e} of the largest value (at most {CONVOLUTION_LIMIT:.0e})."
                if _placed(fact)
                else f"A convolution meant for {name} ran on {fact['place']}.",
                "What is trained here cannot be trusted.",
                reinstall,
            )
        ]
    if stage == "trained":
        return [_trained(name, fact, reinstall)]
    return []


def _trained(name: str, fact: dict[str, Any], reinstall: str) -> Finding:
    losses = f"loss {fact['first']:.2f} → {fact['last']:.2f} in {fact['steps']} steps"
    text = f"a tiny CNN on {name}: {losses}, {fact['seconds']:.1f} s"
    if not fact["last"] < fact["first"] / 2:
        return Finding(
            "proof",
            "problem",
            f"{text}: it does not learn.",
            "Three kinds of stripes are learnt in a few steps.",
            reinstall,
        )
    if fact["device"] == "cpu:0":
        return Finding("proof", "ok", text)
    if not fact["difference"] <= TRAINING_LIMIT:
        return Finding(
            "proof",
            "problem",
            f"{text}; its weights differ from the processor's by {fact['difference']:.1e} of the largest (at most "
            f"{TRAINING_LIMIT:.0e}).",
            "The same steps from the same weights must end alike: card, memory or libraries compute wrongly.",
            reinstall,
        )
    return Finding("proof", "ok", f"{text}; weights equal the processor's to {fact['difference']:.0e}")


def _placed(fact: dict[str, Any]) -> bool:
    """Whether the weights lay on the device that was asked for; JAX and TensorFlow spell it differently."""
    return not fact["place"] or fact["device"][:3] in fact["place"].lower() or "cuda" in fact["place"].lower()
