"""Keras and its backend, started in a process of their own: does the import succeed, are the numbers right?"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Sequence
from typing import Any, NamedTuple

from cnnlab.doctor._environment import backend
from cnnlab.doctor._findings import Finding, Meaning, fill_in, found, look_up, meaning_of, ok
from cnnlab.doctor._gpu import Graphics, library_of
from cnnlab.doctor._machine import SCRIPTS, Machine, Outcome

MARK = "@cnnlab "
START = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"  # keeps the script's folder off sys.path

# How far a device may be from numpy, and from the processor after training: float32 with other orders of summing.
CONVOLUTION_LIMIT = 1e-4
TRAINING_LIMIT = 1e-2

# Crashes on Windows, which returns an NTSTATUS.
WINDOWS_CRASHES = {0xC000001D: "SIGILL", 0xC0000005: "SIGSEGV", 0xC0000409: "SIGABRT", 0xC0000017: "SIGKILL"}


class Run(NamedTuple):
    """One run of the script and the facts that it printed."""

    outcome: Outcome
    facts: list[dict[str, Any]]

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


def check_missing(machine: Machine) -> list[Finding]:
    """Says that TensorFlow is not there, without trying; empty where it is."""
    if machine.module_folder("tensorflow"):
        return []
    name = "tensorflow.missing_for_jax" if library_of(machine) == "JAX" else "tensorflow.missing"
    return [found(machine, name, prefix=machine.prefix)]


def _broken_import(machine: Machine, name: str, words: str) -> Finding:
    """An import that ended with an exception."""
    cause = look_up(words, "import")
    lines = [line for line in words.splitlines() if line.strip()] or [""]
    telling = next((line for line in lines if cause and re.search(cause.pattern, line)), lines[0])
    because = _because(machine, cause, "It is there but cannot be loaded; nothing that uses it runs.", "{everything}")
    return found(machine, "tensorflow.broken", module=name, line=telling[:300], **because)


def _because(machine: Machine, cause: Meaning | None, why: str, fix: str) -> dict[str, str]:
    """Why something fails and what fixes it: as the known cause says, else as given."""
    fix = fill_in(machine, (cause and cause.fix) or fix)
    return {"why": f"Cause: {cause.meaning}." if cause else why, "fix": fix}


def _ended(machine: Machine, run: Run, timeout: float) -> Finding:
    """A process that ended, or was stopped, before its last line."""
    step = run.facts[-1] if run.facts else {"stage": "start"}
    area, doing, device = "tensorflow", f"at the step “{step['stage']}”", step.get("device")
    if "module" in step:
        doing = f"importing {step['module']}"
    elif device:
        area, doing = "proof", ("training" if step["stage"].startswith("train") else "computing a convolution")
        doing += f" on {device}"
    if run.outcome.trouble == "timeout":
        name = "proof.slow_card" if "gpu" in str(device) else f"{area}.slow_disk"
        return found(machine, name, seconds=f"{timeout:.0f}", doing=doing)
    if run.outcome.trouble == "missing":
        return found(machine, "python.dead", executable=machine.executable, error=run.outcome.errors)
    name, lines = crash_name(run.outcome.status), run.outcome.errors.strip().splitlines()
    known = [meaning for line in reversed(lines) if (meaning := meaning_of(line, has_card=True))]
    cause = next((meaning for meaning in known if not meaning.harmless), None)
    cause = cause or look_up(name, "crash") or look_up(run.outcome.errors, "import")
    last = lines[-1] if lines else "no message"
    because = _because(machine, cause, f"Its last words: {last[:300]}", "{everything}")
    return found(machine, f"{area}.ended", doing=doing, name=name, **because)


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


def check(machine: Machine, graphics: Graphics, run: Run, *, timeout: float) -> list[Finding]:
    """What the run of TensorFlow says: import, log lines, devices, the proof."""
    findings = [_broken_import(machine, fact["module"], fact["error"]) for fact in run.stages("broken")]
    imported = {fact["module"]: fact for fact in run.stages("imported")}
    if "keras" in imported:
        findings.append(_imported(machine, imported))
    if not run.stages("end"):
        findings.append(_ended(machine, run, timeout))
    findings += check_log(machine, run.outcome.errors, has_card=len(graphics.hidden) < len(graphics.cards))
    findings += _check_cards(machine, graphics, run)
    return findings + [finding for fact in run.facts if (finding := _proved(machine, fact))]


def _imported(machine: Machine, imported: dict[str, dict[str, Any]]) -> Finding:
    seconds = sum(fact["seconds"] for fact in imported.values())
    titles = {"jax": "JAX", "tensorflow": "TensorFlow", "keras": "Keras"}
    named = [f"{title} {imported[name]['version']}" for name, title in titles.items() if name in imported]
    text = f"{', '.join(named[:-1])} and {named[-1]} start in" if named[1:] else f"{named[0]} starts in"
    if seconds < 60:
        return ok("tensorflow", f"{text} {seconds:.1f} s")
    return found(machine, "tensorflow.slow_start", text=f"{text} {seconds:.1f} s")


def check_log(machine: Machine, text: str, *, has_card: bool) -> list[Finding]:
    """Names the harmless log lines as harmless, and the others by what fixes them."""
    harmless: dict[str, dict[str, None]] = {}  # what it means: the lines that mean it, in order
    findings: dict[str, Finding] = {}
    for line in text.splitlines():
        meaning = meaning_of(line, has_card=has_card)
        if meaning and meaning.harmless:
            part = re.search(meaning.pattern, line)
            harmless.setdefault(meaning.meaning, {})[part.group() if part else line] = None
        elif meaning:
            values = {"line": _short(line), "meaning": meaning.meaning, "fix": fill_in(machine, meaning.fix)}
            findings[meaning.meaning] = found(machine, "log.serious", **values)
    if harmless:
        listed = "; ".join(f"“{'”, “'.join(lines)}” ({words})" for words, lines in harmless.items())
        findings[""] = found(machine, "log.harmless", listed=listed)
    return list(findings.values())


def _short(line: str) -> str:
    line = re.sub(r"^(\d{4}-\d\d-\d\d [\d:.]+: )?[IWEF]\d* ?[\d.:]*\s*\d*\s*", "", line.strip())
    return line if len(line) <= 160 else line[:157] + "…"


def _check_cards(machine: Machine, graphics: Graphics, run: Run) -> list[Finding]:
    """Cards that the driver lists and Keras's backend does not use."""
    devices, names = run.stages("devices"), [card.name for card in graphics.cards if card not in graphics.hidden]
    if not devices or len(devices[0]["cards"]) >= len(names) or machine.windows:
        return []
    seen, library = len(devices[0]["cards"]), library_of(machine)
    reason = f"The reason: {'; '.join(graphics.missing)}." if graphics.missing else "The log lines name the reason."
    values = {"library": library, "seen": seen, "expected": len(names), "listed": ", ".join(names), "reason": reason}
    return [found(machine, "gpu.idle" if seen else "gpu.unused", fix=machine.install_cuda(library.lower()), **values)]


def _proved(machine: Machine, fact: dict[str, Any]) -> Finding | None:
    """One fact of the proof in words."""
    device = fact.get("device", "")
    name = "the processor" if device == "cpu:0" else f"card {device.partition(':')[2]}"
    if fact["stage"] == "failed":
        cause = meaning_of(fact["error"].replace("\n", " "), has_card=True)
        because = _because(machine, cause, "The device is there, but computing on it does not work.", "{reinstall}")
        return found(machine, "proof.failed", device=name, error=fact["error"].splitlines()[0][:300], **because)
    if fact["stage"] == "convolved":
        return _convolved(machine, name, fact)
    return _trained(machine, name, fact) if fact["stage"] == "trained" else None


def _convolved(machine: Machine, name: str, fact: dict[str, Any]) -> Finding:
    # Whether the weights lay on the device that was asked for; JAX and TensorFlow spell it differently.
    place = fact["place"].lower()
    if place and fact["device"][:3] not in place and "cuda" not in place:
        return found(machine, "proof.wrong_place", device=name, place=fact["place"])
    errors = {key: fact[key] for key in ("error", "gradient_error")}
    if all(error <= CONVOLUTION_LIMIT for error in errors.values()):  # NaN is not
        worst = max(errors.values())
        return ok(
            "proof", f"a convolution and its gradient on {name} equal numpy's to {worst:.0e} of the largest value"
        )
    words = {key: f"{error:.1e}" for key, error in errors.items()}
    return found(machine, "proof.wrong_convolution", device=name, limit=f"{CONVOLUTION_LIMIT:.0e}", **words)


def _trained(machine: Machine, name: str, fact: dict[str, Any]) -> Finding:
    losses = f"loss {fact['first']:.2f} → {fact['last']:.2f} in {fact['steps']} steps"
    text = f"a tiny CNN on {name}: {losses}, {fact['seconds']:.1f} s"
    if not fact["last"] < fact["first"] / 2:
        return found(machine, "proof.learns_nothing", text=text)
    if fact["device"] == "cpu:0":
        return ok("proof", text)
    if fact["difference"] <= TRAINING_LIMIT:
        return ok("proof", f"{text}; weights equal the processor's to {fact['difference']:.0e}")
    return found(machine, "proof.wrong_weights", text=text, difference=f"{fact['difference']:.1e}")
