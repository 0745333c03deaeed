"""Installed packages against what the project declares and what was tested. Reads metadata, imports nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cnnlab.doctor._findings import Finding
from cnnlab.doctor._machine import Machine

# Distributions that bring a module under another distribution's name.
RIVALS = {
    "tensorflow": ("tensorflow-cpu", "tensorflow-intel", "tensorflow-macos", "tensorflow-rocm", "tf-nightly"),
    "keras": ("keras-nightly",),
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
}
SHOWN = ("tensorflow", "keras", "numpy", "pandas", "scikit-learn")


def check(machine: Machine) -> list[Finding]:
    """All findings about packages."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return _check_names(machine)
    return Packages(machine, Requirement).findings()


def provider(machine: Machine, name: str) -> str | None:
    """The installed distribution that brings `name`: itself, or a rival such as tensorflow-cpu."""
    return next((each for each in (name, *RIVALS.get(name, ())) if machine.version(each)), None)


def declared(machine: Machine) -> list[str]:
    """The project's direct requirements: from pyproject.toml beside the package, or from the installed metadata."""
    text = machine.read(machine.join(machine.project, "pyproject.toml")) or ""
    if re.search(r'^name\s*=\s*"cnnlab"', text, re.MULTILINE):
        try:
            import tomllib
        except ImportError:  # Python 3.10 and older, where everything else is wrong already: names are enough
            block = re.search(r"^dependencies\s*=\s*\[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
            return re.findall(r'^\s*"([^"]+)"', block.group(1), re.MULTILINE) if block else []
        return list(tomllib.loads(text)["project"]["dependencies"])
    packages = machine.distributions("cnnlab")
    return [text for text in (packages[0].requires if packages else ()) if "extra ==" not in text]


def pinned(machine: Machine) -> list[str]:
    """The tested set: the `name==version` lines of requirements.txt beside the package, with their markers."""
    text = machine.read(machine.join(machine.project, "requirements.txt")) or ""
    lines = (re.sub(r"\s(--hash=|#|\\).*", "", line).strip() for line in text.splitlines())
    return [line for line in lines if re.match(r"[A-Za-z0-9._-]+(\[.*\])?\s*==", line)]


def _check_names(machine: Machine) -> list[Finding]:
    """Without the library that compares versions: which packages are there at all."""
    names = [re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0] for text in declared(machine)]
    missing = [name for name in names if not provider(machine, name)]
    text = f"{len(missing)} of {len(names)} packages are missing: {', '.join(missing)}."
    if not missing:
        text = "The package `packaging`, which compares versions, is missing."
    why = "The notebooks stop with “No module named …”."
    return [Finding("packages", "problem", text, why, machine.install_everything())]


@dataclass
class Packages:
    """One look at all packages, declared ones and those that they need in turn."""

    machine: Machine
    requirement: type
    versions: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)  # declared, installed, of another version
    conflicts: list[str] = field(default_factory=list)  # one package against what another needs
    unfit: set[str] = field(default_factory=set)  # the names in the two lists above

    def __post_init__(self) -> None:
        version = self.machine.python
        self.marker = {
            "extra": "",
            "python_version": f"{version[0]}.{version[1]}",
            "python_full_version": ".".join(map(str, version)),
            "platform_system": self.machine.system,
            "platform_machine": self.machine.architecture,
            "sys_platform": {"Linux": "linux", "Darwin": "darwin", "Windows": "win32"}.get(self.machine.system, ""),
        }

    def findings(self) -> list[Finding]:
        """Walks from the declared requirements through everything they need."""
        direct = [self.requirement(text) for text in declared(self.machine)]
        direct = [each for each in direct if self._applies(each)]
        waiting = []
        for need in direct:
            version = self._version(need.name)
            if version is None:
                self.missing.append(str(need))
            elif not need.specifier.contains(version, prereleases=True):
                self.unfit.add(_canonical(need.name))
                self.outside.append(f"{need.name} {version} (needs {need.specifier})")
            waiting.append(need.name)
        self._walk(waiting)
        return [*self._troubles(direct), *self._copies(), *self._pins(), *self._project()]

    def _applies(self, need) -> bool:
        return need.marker is None or need.marker.evaluate(self.marker)

    def _version(self, name: str) -> str | None:
        name = _canonical(name)
        if name not in self.versions:
            distribution = provider(self.machine, name)
            self.versions[name] = (distribution and self.machine.version(distribution)) or ""
        return self.versions[name] or None

    def _walk(self, waiting: list[str]) -> None:
        seen: set[str] = set()
        while waiting:
            name = _canonical(waiting.pop())
            if name in seen:
                continue
            seen.add(name)
            packages = self.machine.distributions(provider(self.machine, name) or name)
            for text in packages[0].requires if packages else ():
                need = self.requirement(text)
                if not self._applies(need):
                    continue
                version = self._version(need.name)
                who = f"{name} {packages[0].version} needs {need.name}{need.specifier}"
                if version is None:
                    self.conflicts.append(f"{who}, which is missing")
                elif not need.specifier.contains(version, prereleases=True):
                    self.unfit.add(_canonical(need.name))
                    self.conflicts.append(f"{who}, but {version} is installed")
                waiting.append(need.name)

    def _troubles(self, direct: list) -> list[Finding]:
        fix = self.machine.install_everything()
        found = []
        if not direct:
            found.append(
                Finding(
                    "packages",
                    "warning",
                    "Which packages the project needs could not be read.",
                    "Neither pyproject.toml beside the package nor its installed metadata names them.",
                    "Clone the project again, and run this inside its folder.",
                )
            )
        if self.missing:
            found.append(
                Finding(
                    "packages",
                    "problem",
                    f"{len(self.missing)} of {len(direct)} packages are missing: {', '.join(self.missing)}.",
                    "The notebooks stop with “No module named …”.",
                    fix,
                )
            )
        if self.outside:
            found.append(
                Finding(
                    "packages",
                    "problem",
                    f"Outside the declared versions: {'; '.join(self.outside)}.",
                    "With another version, calls that the notebooks make may be missing or mean something else.",
                    fix,
                )
            )
        if self.conflicts:
            numpy = any(" needs numpy" in conflict for conflict in self.conflicts)
            found.append(
                Finding(
                    "packages",
                    "problem",
                    f"Packages that do not fit together: {'; '.join(self.conflicts)}.",
                    "Compiled packages built for another numpy stop at import with “numpy.dtype size changed” or "
                    "“_ARRAY_API not found”."
                    if numpy
                    else "One of the two stops at import or, worse, later.",
                    fix,
                )
            )
        if not found:
            shown = ", ".join(f"{name} {version}" for name in SHOWN if (version := self._version(name)))
            found.append(Finding("packages", "ok", f"{len(direct)} declared packages fit together: {shown}"))
        return found

    def _copies(self) -> list[Finding]:
        """Two copies of one distribution, or two distributions that write the same module."""
        found = []
        twice = []
        for name in sorted(self.versions):
            copies = self.machine.distributions(name)
            if len({copy.location for copy in copies}) > 1:
                places = ", ".join(f"{copy.version} in {self.machine.shown(copy.location)}" for copy in copies)
                twice.append((name, f"{name}: {places}"))
        if twice:
            names = " ".join(name for name, _ in twice)
            found.append(
                Finding(
                    "packages",
                    "warning",
                    f"Installed twice: {'; '.join(text for _, text in twice)}. The first of each is used.",
                    "The copy outside this environment may be loaded in part, or after the other is removed.",
                    self.machine.pip(f"uninstall -y {names}") + "\n" + self.machine.install_everything(),
                )
            )
        for name, rivals in RIVALS.items():
            present = [each for each in (name, *rivals) if self.machine.version(each)]
            if len(present) > 1:
                found.append(
                    Finding(
                        "packages",
                        "warning",
                        f"{' and '.join(present)} are both installed and write the same files.",
                        "Which is imported depends on what was installed last; removing one breaks the other.",
                        self.machine.pip(f"uninstall -y {' '.join(present)}")
                        + "\n"
                        + self.machine.install_everything(),
                    )
                )
        return found

    def _pins(self) -> list[Finding]:
        differing = []
        for need in filter(self._applies, map(self.requirement, pinned(self.machine))):
            version = self._version(need.name)
            fits = need.specifier.contains(version or "0", prereleases=True)
            if version and not fits and _canonical(need.name) not in self.unfit:
                differing.append(f"{need.name} {version} (tested: {str(need.specifier)[2:]})")
        if not differing:
            return []
        more = f" and {len(differing) - 6} more" if len(differing) > 6 else ""
        return [
            Finding(
                "packages",
                "note",
                f"{len(differing)} package{'s differ' if len(differing) > 1 else ' differs'} from the tested set: "
                f"{', '.join(differing[:6])}{more}.",
                "They are within the declared ranges; the numbers printed in the notebooks come from the tested set.",
                self.machine.install_everything(),
            )
        ]

    def _project(self) -> list[Finding]:
        if self.machine.distributions("cnnlab"):
            return []
        return [
            Finding(
                "packages",
                "warning",
                "cnnlab itself is not installed in this environment.",
                "`import cnnlab` works in the project's folder only, and not in your own notebooks.",
                self.machine.pip("install --no-deps -e ."),
            )
        ]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
