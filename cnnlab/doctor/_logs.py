"""What TensorFlow's log lines and import errors mean: which are harmless, and what fixes the others."""

from __future__ import annotations

import re
from typing import NamedTuple

from cnnlab.doctor._graphics import INSTALL_DRIVER, install_gpu, install_jax
from cnnlab.doctor._machine import Machine


class Meaning(NamedTuple):
    """What the lines that match a pattern mean."""

    pattern: str
    meaning: str
    fix: str = ""  # may hold {everything}, {gpu}, {jax}, {pip …} and {set NAME VALUE}: see `fill_in`
    harmless: bool = False


def fill_in(machine: Machine, fix: str) -> str:
    """Fills the commands of this machine into a fix."""
    fix = fix.replace("{everything}", machine.install_everything())
    fix = fix.replace("{gpu}", install_gpu(machine)).replace("{jax}", install_jax(machine))
    fix = re.sub(r"\{set (\S+) (\S+)\}", lambda match: machine.set_variable(match.group(1), match.group(2)), fix)
    return re.sub(r"\{pip ([^}]*)\}", lambda match: machine.pip(match.group(1)), fix)


REINSTALL = "{pip install --force-reinstall --no-cache-dir tensorflow keras}"
CLOSE_OTHERS = "nvidia-smi\nThen shut down the other notebook: Kernel, Shut Down All Kernels."

HARMLESS = [
    ("oneDNN custom operations are on", "faster CPU code; last digits may differ"),
    ("use available CPU instructions|rebuild TensorFlow with", "an advertisement for building it oneself"),
    (r"before absl::InitializeLog\(\) is called", "logging that starts before its settings are read"),
    ("Unable to register cu(DNN|FFT|BLAS) factory", "the same part is linked twice; the first one serves"),
    ("computation placer already registered", "the same part is linked twice; the first one serves"),
    ("Could not find TensorRT", "an optional accelerator for inference"),
    ("NUMA node|NUMA support", "a question about memory banks that a PC or WSL2 does not answer"),
    ("Local rendezvous is aborting with status: OUT_OF_RANGE", "a dataset came to its end"),
    ("exceeds 10% of free system memory", "a large array; a problem only if the kernel dies after it"),
]

# Harmless without a usable card; with one, the sign that TensorFlow does not reach it.
NO_DRIVER = r"Could not find cuda drivers|failed call to cuInit|CUDA_ERROR_NO_DEVICE|cuda_diagnostics\.cc"

SERIOUS = [
    ("Cannot dlopen some GPU libraries", "a CUDA library is missing or does not load", "{gpu}"),
    ("Loaded runtime CuDNN library", "cuDNN is older than the one TensorFlow was built for", "{gpu}"),
    ("a CUDA-enabled jaxlib is not installed", "the installed JAX is the one for processors", "{jax}"),
    (
        "CUDA_ERROR_(INVALID_PTX|INVALID_HANDLE|NO_BINARY_FOR_GPU)|does not support target 'sm_",
        "this TensorFlow has no code for this generation of cards",
        "{jax}\n{set KERAS_BACKEND jax}",
    ),
    ("CUDA driver version is insufficient|forward compatibility", "the driver is too old for CUDA", INSTALL_DRIVER),
    ("does not match DSO version", "the driver was updated while the old one was running", "sudo reboot"),
    ("libdevice|ptxas", "XLA, Keras's compiler, lacks a file of CUDA", "{pip install nvidia-cuda-nvcc-cu12}"),
    ("DNN library is not found|CUDNN_STATUS_", "cuDNN could not start: another process holds the card", CLOSE_OTHERS),
    ("OOM when|RESOURCE_EXHAUSTED|OUT_OF_MEMORY|failed to allocate", "the card's memory is used up", CLOSE_OTHERS),
    ("Ignoring visible gpu .*(core|multiproc)", "one card is much weaker", "{set TF_MIN_GPU_MULTIPROCESSOR_COUNT 1}"),
]

# Errors that end `import tensorflow` or `import keras`, from the most telling to the most general.
IMPORT_ERRORS = [
    (
        r"NumPy 1\.x|numpy\.dtype size changed|_ARRAY_API not found|numpy\._?core\.(multiarray|umath) failed|"
        r"C extension: \S+ not built",  # the last is pandas's way
        "a package was compiled for another numpy than the one installed (numpy mismatch)",
        "{everything}",
    ),
    ("[Pp]rotobuf|MessageFactory", "protobuf has another version than TensorFlow needs", "{everything}"),
    ("libmetal_plugin", "tensorflow-metal does not fit this TensorFlow", "{pip uninstall -y tensorflow-metal}"),
    ("DLL load failed", "Microsoft's Visual C++ runtime is missing", "winget install Microsoft.VCRedist.2015+.x64"),
    ("GLIBCXX_.* not found", "the C++ library found first is too old", "conda install -c conda-forge libstdcxx-ng"),
    ("failed to map segment", "programs may not run on this disk (noexec)", "Make the environment in another folder."),
    ("incompatible architecture|wrong ELF class", "a package for another processor is installed", REINSTALL),
    ("partially initialized module", "a file in the working folder has the name of a library", REINSTALL),
    ("undefined symbol|Symbol not found", "files of two versions are mixed in one installation", REINSTALL),
    ("Unable to import backend", "Keras's backend is not installed", "{set KERAS_BACKEND tensorflow}"),
    ("No space left on device", "the disk is full", "{pip cache purge}"),
    ("MemoryError|Cannot allocate memory", "memory has ended", "Close other notebooks and programs."),
    ("No module named", "a package is missing", "{everything}"),
]


def meaning_of(line: str, *, has_card: bool) -> Meaning | None:
    """What one log line means; None where it is not known.

    >>> meaning_of("I0000 oneDNN custom operations are on.", has_card=False).meaning
    'faster CPU code; last digits may differ'
    """
    known = [Meaning(*entry) for entry in SERIOUS] + [Meaning(*entry, harmless=True) for entry in HARMLESS]
    unreached = Meaning(NO_DRIVER, "TensorFlow does not reach the NVIDIA driver of your card", "nvidia-smi")
    known.append(unreached if has_card else Meaning(NO_DRIVER, "no NVIDIA card, so the processor is used", "", True))
    return next((meaning for meaning in known if re.search(meaning.pattern, line)), None)


def import_error(text: str) -> Meaning | None:
    """The cause of a failed import, from its traceback."""
    return next((Meaning(*entry) for entry in IMPORT_ERRORS if re.search(entry[0], text)), None)
