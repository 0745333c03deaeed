"""Keras and its backend, started in a process of their own: does the import succeed, are the numbers right?"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cnnlab.doctor import _logs
from cnnlab.doctor._environment import backend
from cnnlab.doctor._findings import Finding, note, ok, problem, warning
from cnnlab.doctor._graphics import Graphics, install_cuda
from cnnlab.doctor._machine import SCRIPTS, Machine, Outcome

MARK = "@cnnlab "
START = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"  # keeps the script's folder off sys.path

# How far a device may be from numpy, and from the processor after training: float32 with other orders of summing.
CONVOLUTION_LIMIT = 1e-4
TRAINING_LIMIT = 1e-2

CRASHES = {
    "SIGILL": (
        "the processor lacks an instruction that the package was compiled with (AVX)",
        "In a virtual machine set the processor type to “host”; else: conda install -c conda-forge tensorflow",
    ),
    "SIGSEGV": ("a segmentation fault: files of two versions are mixed", _logs.REINSTALL),
    "SIGABRT": ("an abort: a check inside the library failed", _logs.REINSTALL),
    "SIGBUS": ("a file was cut short, usually by a full disk or a network drive", _logs.REINSTALL),
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
        return bool(self.step["stage"] == "end")

    def stages(self, name: str) -> list[dict[str, Any]]:
        """The facts of this stage."""
        return [fact for fact in self.facts if fact["stage"] == name]


def start(machine: Machine, *, timeout: float, modules: Sequence[str] = ()) -> Run:
    """Runs the script with this machine's Python and waits for its end."""
    if not modules:
        backends = {"jax": backend(machine)[0] == "jax", "tensorflow": not check_missing(machine)}
        modules = ["numpy", *(name for name, wanted in backends.items() if wanted), "keras"]
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
    request = json.dumps({"modules": list(modules)})
    command = [machine.executable, "-c", START, str(SCRIPTS / "_proof.py"), request]
    outcome = machine.run(command, timeout=timeout, environment=environment)
    facts = [json.loads(line[len(MARK) :]) for line in outcome.output.splitlines() if line.startswith(MARK)]
    return Run(outcome, facts)


# -- imports ---------------------------------------------------------------------------------------------------------


def check_missing(machine: Machine) -> list[Finding]:
    """Says that TensorFlow is not there, without trying; empty where it is."""
    if machine.module_folder("tensorflow"):
        return []
    words = f"TensorFlow is not installed in this environment ({machine.prefix})."
    if backend(machine)[0] == "jax":
        why = "Keras trains with JAX on arrays; `pipelines.load` and the exports need TensorFlow besides."
        return [warning("tensorflow", words, why, machine.install_everything())]
    why = "Nothing can be trained. Often it is installed, but in another environment than the one this runs in."
    return [problem("tensorflow", words, why, machine.install_everything())]


def _broken_import(machine: Machine, name: str, words: str) -> Finding:
    """An import that ended with an exception."""
    cause = _logs.import_error(words)
    lines = [line for line in words.splitlines() if line.strip()] or [""]
    telling = next((line for line in lines if cause and re.search(cause.pattern, line)), lines[0])
    why = f"Cause: {cause.meaning}." if cause else "It is there but cannot be loaded; nothing that uses it runs."
    fix = _logs.fill_in(machine, cause.fix if cause else "{everything}")
    return problem("tensorflow", f"`import {name}` fails: {telling[:300]}", why, fix)


def _ended(machine: Machine, run: Run, timeout: float) -> Finding:
    """A process that ended, or was stopped, before its last line."""
    module, device = run.step.get("module"), run.step.get("device")
    doing = f"importing {module}" if module else f"at the step “{run.step['stage']}”"
    if device:
        doing = f"{'training' if run.step['stage'].startswith('train') else 'computing a convolution'} on {device}"
    area = "proof" if device else "tensorflow"
    if run.outcome.trouble == "timeout":
        slow = "Usually a slow disk: a network drive, a folder that a virus scanner or a cloud service watches."
        fix = "Move the project to a local disk and make .venv again there."
        if "gpu" in str(device):
            slow = "The driver may be compiling code for a card that this TensorFlow does not know, or the card hangs."
            fix = f"{machine.python_command} -m cnnlab doctor --timeout 1800"
        return problem(area, f"Stopped after {timeout:.0f} s while {doing}.", slow, fix)
    if run.outcome.trouble == "missing":
        words = f"{machine.executable} cannot be started: {run.outcome.errors}"
        return problem("python", words, "Nothing can be tried with it.", machine.new_environment())
    name = crash_name(run.outcome.status)
    meaning, fix = CRASHES.get(name, ("", ""))
    known = [_logs.meaning_of(line, has_card=True) for line in run.outcome.errors.splitlines()]
    serious = [each for each in known if each and not each.harmless]
    cause = serious[-1] if serious else None if meaning else _logs.import_error(run.outcome.errors)
    if cause:
        meaning, fix = cause.meaning, cause.fix or fix
    last = (run.outcome.errors.strip().splitlines() or ["no message"])[-1]
    return problem(
        area,
        f"The process ended while {doing} ({name}).",
        f"Cause: {meaning}." if meaning else f"Its last words: {last[:300]}",
        _logs.fill_in(machine, fix or "{everything}"),
    )


def crash_name(status: int | None) -> str:
    """SIGILL for -4 (POSIX), for 132 (a shell's way) and for Windows's number; otherwise `exit status 3`."""
    if status is None:
        return "not started"
    if status & 0xFFFFFFFF in WINDOWS_CRASHES:
        return WINDOWS_CRASHES[status & 0xFFFFFFFF]
    try:
        return signal.Signals(-status if status < 0 else status - 128).name
    except ValueError:
        return f"exit status {status}"


# -- TensorFlow ------------------------------------------------------------------------------------------------------


def check(machine: Machine, graphics: Graphics, run: Run, *, timeout: float) -> list[Finding]:
    """What the run of TensorFlow says: import, log lines, devices, the proof."""
    found = [_broken_import(machine, fact["module"], fact["error"]) for fact in run.stages("broken")]
    imported = {fact["module"]: fact for fact in run.stages("imported")}
    if "keras" in imported:
        found.append(_imported(imported))
    if not run.complete:
        found.append(_ended(machine, run, timeout))
    found += check_log(machine, run.outcome.errors, has_card=len(graphics.hidden) < len(graphics.cards))
    found += _check_cards(machine, graphics, run)
    return found + [finding for fact in run.facts if (finding := _proved(machine, fact))]


def _imported(imported: dict[str, dict[str, Any]]) -> Finding:
    seconds = sum(fact["seconds"] for fact in imported.values())
    titles = {"jax": "JAX", "tensorflow": "TensorFlow", "keras": "Keras"}
    named = [f"{title} {imported[name]['version']}" for name, title in titles.items() if name in imported]
    text = f"{', '.join(named[:-1])} and {named[-1]} start in" if named[1:] else f"{named[0]} starts in"
    if seconds < 60:
        return ok("tensorflow", f"{text} {seconds:.1f} s")
    why = "The first start reads a gigabyte. Where it stays so, the disk is slow or a virus scanner reads along."
    return note("tensorflow", f"{text} {seconds:.1f} s.", why)


def check_log(machine: Machine, text: str, *, has_card: bool) -> list[Finding]:
    """Names the harmless log lines as harmless, and the others by what fixes them."""
    harmless: dict[str, dict[str, None]] = {}  # what it means: the lines that mean it, in order
    found: dict[str, Finding] = {}
    for line in text.splitlines():
        meaning = _logs.meaning_of(line, has_card=has_card)
        if meaning and meaning.harmless:
            part = re.search(meaning.pattern, line)
            harmless.setdefault(meaning.meaning, {})[part.group() if part else line] = None
        elif meaning:
            words = f"TensorFlow logs “{_short(line)}”"
            fix = _logs.fill_in(machine, meaning.fix)
            found[meaning.meaning] = warning("log", words, f"That is: {meaning.meaning}.", fix)
    if harmless:
        listed = "; ".join(f"“{'”, “'.join(lines)}” ({words})" for words, lines in harmless.items())
        found[""] = note("log", f"Harmless log lines: {listed}.", "Nothing is to be done.")
    return list(found.values())


def _short(line: str) -> str:
    line = re.sub(r"^(\d{4}-\d\d-\d\d [\d:.]+: )?[IWEF]\d* ?[\d.:]*\s*\d*\s*", "", line.strip())
    return line if len(line) <= 160 else line[:157] + "…"


def _check_cards(machine: Machine, graphics: Graphics, run: Run) -> list[Finding]:
    """Cards that the driver lists and Keras's backend does not use."""
    devices = run.stages("devices")
    expected = len(graphics.cards) - len(graphics.hidden)
    if not devices or len(devices[0]["cards"]) >= expected or machine.windows:
        return []
    seen = len(devices[0]["cards"])
    jax = backend(machine)[0] == "jax"
    listed = ", ".join(card.name for card in graphics.cards if card not in graphics.hidden)
    reason = f"The reason: {'; '.join(graphics.missing)}." if graphics.missing else "The log lines name the reason."
    return [
        problem(
            "gpu",
            f"{'JAX' if jax else 'TensorFlow'} uses {seen} of {expected} cards ({listed}).",
            f"Training {'leaves a card idle' if seen else 'uses the processor, often ten times slower'}. {reason}",
            install_cuda(machine, "jax" if jax else "tensorflow"),
        )
    ]


def _proved(machine: Machine, fact: dict[str, Any]) -> Finding | None:
    """One fact of the proof in words."""
    stage, device = fact["stage"], fact.get("device", "")
    name = "the processor" if device == "cpu:0" else f"card {device.partition(':')[2]}"
    fix = _logs.fill_in(machine, _logs.REINSTALL)
    if stage == "failed":
        known = _logs.meaning_of(fact["error"].replace("\n", " "), has_card=True)
        why = f"Cause: {known.meaning}." if known else "The device is there, but computing on it does not work."
        if known and known.fix:
            fix = _logs.fill_in(machine, known.fix)
        return problem("proof", f"Training on {name} fails: {fact['error'].splitlines()[0][:300]}", why, fix)
    if stage == "convolved":
        return _convolved(name, fact, fix)
    return _trained(name, fact, fix) if stage == "trained" else None


def _convolved(name: str, fact: dict[str, Any], fix: str) -> Finding:
    # Whether the weights lay on the device that was asked for; JAX and TensorFlow spell it differently.
    place = fact["place"].lower()
    placed = not place or fact["device"][:3] in place or "cuda" in place
    worst = max(fact["error"], fact["gradient_error"])
    if placed and fact["error"] <= CONVOLUTION_LIMIT and fact["gradient_error"] <= CONVOLUTION_LIMIT:
        return ok(
            "proof", f"a convolution and its gradient on {name} equal numpy's to {worst:.0e} of the largest value"
        )
    words = (
        f"A convolution on {name} differs from numpy's by {fact['error']:.1e}, its gradient by "
        f"{fact['gradient_error']:.1e} of the largest value (at most {CONVOLUTION_LIMIT:.0e})."
    )
    if not placed:
        words = f"A convolution meant for {name} ran on {fact['place']}."
    return problem("proof", words, "What is trained here cannot be trusted.", fix)


def _trained(name: str, fact: dict[str, Any], fix: str) -> Finding:
    losses = f"loss {fact['first']:.2f} → {fact['last']:.2f} in {fact['steps']} steps"
    text = f"a tiny CNN on {name}: {losses}, {fact['seconds']:.1f} s"
    if not fact["last"] < fact["first"] / 2:
        why = "Three kinds of stripes are learned in a few steps."
        return problem("proof", f"{text}: it does not learn.", why, fix)
    if fact["device"] == "cpu:0":
        return ok("proof", text)
    if fact["difference"] <= TRAINING_LIMIT:
        return ok("proof", f"{text}; weights equal the processor's to {fact['difference']:.0e}")
    words = f"{text}; its weights differ from the processor's by {fact['difference']:.1e} of the largest."
    why = "The same steps from the same weights must end alike: card, memory or libraries compute wrongly."
    return problem("proof", words, why, fix)
