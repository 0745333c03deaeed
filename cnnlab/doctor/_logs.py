"""What TensorFlow's log lines and import errors mean: which are harmless, and what mends the others."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cnnlab.doctor._graphics import install_gpu
from cnnlab.doctor._machine import Machine


@dataclass(frozen=True)
class Meaning:
    """What a line means. `fix` may hold {everything}, {gpu}, {pip install …} and {set NAME VALUE}; see `mend`."""

    pattern: str
    meaning: str
    fix: str = ""
    harmless: bool = False
    name: str = ""  # a short name for a harmless line


def mend(machine: Machine, fix: str) -> str:
    """Fills the commands of this machine into a fix."""
    fix = fix.replace("{everything}", machine.install_everything()).replace("{gpu}", install_gpu(machine))
    fix = re.sub(r"\{set (\S+) (\S+)\}", lambda match: machine.set_variable(match.group(1), match.group(2)), fix)
    return re.sub(r"\{pip ([^}]*)\}", lambda match: machine.pip(match.group(1)), fix)


HARMLESS = [
    Meaning(pattern, meaning, harmless=True, name=name)
    for name, pattern, meaning in [
        (
            "oneDNN custom operations are on",
            r"oneDNN custom operations are on",
            "faster CPU code; last digits may differ",
        ),
        (
            "optimized to use available CPU instructions",
            r"This TensorFlow binary is optimized|rebuild TensorFlow with the appropriate compiler flags",
            "an advertisement for building TensorFlow oneself",
        ),
        (
            "before absl::InitializeLog() is called",
            r"before absl::InitializeLog\(\) is called",
            "logging that starts before its settings are read",
        ),
        (
            "Unable to register cuDNN / cuFFT / cuBLAS factory",
            r"Unable to register cu(DNN|FFT|BLAS) factory",
            "the same part is linked twice; the first one serves",
        ),
        (
            "computation placer already registered",
            r"computation placer already registered",
            "the same part is linked twice; the first one serves",
        ),
        ("Could not find TensorRT", r"Could not find TensorRT", "an optional accelerator for inference"),
        (
            "NUMA node read from SysFS had negative value",
            r"NUMA node read from SysFS had negative value|could not open file to read NUMA node|"
            r"Your kernel may (not )?have been built with(out)? NUMA support",
            "a question about memory banks that a PC or WSL2 does not answer",
        ),
        ("end of sequence", r"Local rendezvous is aborting with status: OUT_OF_RANGE", "a data set came to its end"),
        ("Registers are spilled", r"Registers are spilled", "a note of the GPU's compiler about speed"),
        ("Delay kernel timed out", r"Delay kernel timed out", "a speed measurement of the GPU was repeated"),
        ("XLA service initialized", r"XLA service 0x|StreamExecutor device \(|StreamExecutor \[", "XLA says hello"),
        ("Loaded cuDNN version", r"Loaded cuDNN version", "cuDNN says hello"),
        ("Created device", r"Created device /job|Compiled cluster using XLA", "TensorFlow says hello"),
        (
            "exceeds 10% of free system memory",
            r"exceeds 10% of free system memory",
            "a large array; only a problem when the kernel dies after it",
        ),
        ("Overriding orig_value", r"Overriding orig_value setting", "a setting was given twice"),
    ]
]

# Harmless without a usable card; with one, the sign that TensorFlow does not reach it.
NO_CARD = [
    Meaning(
        r"Could not find cuda drivers",
        "no NVIDIA card, so the processor is used",
        harmless=True,
        name="Could not find cuda drivers",
    ),
    Meaning(
        r"failed call to cuInit|no NVIDIA GPU device is present|CUDA_ERROR_NO_DEVICE|cuda_diagnostics\.cc",
        "no NVIDIA card, so the processor is used",
        harmless=True,
        name="failed call to cuInit",
    ),
]
NO_DRIVER = Meaning(
    "|".join(meaning.pattern for meaning in NO_CARD),
    "TensorFlow does not reach the NVIDIA driver although there is a card",
    "nvidia-smi",
)

SERIOUS = [
    Meaning(pattern, meaning, fix)
    for pattern, meaning, fix in [
        (
            r"Cannot dlopen some GPU libraries",
            "a CUDA library is missing or does not load, so the card is not used",
            "{gpu}",
        ),
        (
            r"Loaded runtime CuDNN library",
            "cuDNN is older than the one TensorFlow was built for, or another copy comes first",
            "{gpu}",
        ),
        (
            r"CUDA_ERROR_(INVALID_PTX|INVALID_HANDLE|NO_BINARY_FOR_GPU)|does not support target 'sm_",
            "this TensorFlow has no code for this generation of cards",
            '{pip install --upgrade "jax[cuda12]"}\n{set KERAS_BACKEND jax}',
        ),
        (
            r"was not built with CUDA kernel binaries compatible with compute capability",
            "the driver compiles the code for this card at the first start, which takes minutes or fails",
            "",
        ),
        (
            r"CUDA driver version is insufficient|forward compatibility was attempted on non supported HW",
            "the driver is too old for CUDA",
            "Install the current driver from nvidia.com/drivers.",
        ),
        (
            r"kernel version [\d.]+ does not match DSO version",
            "the driver was updated while the old one was running",
            "sudo reboot",
        ),
        (
            r"Can't find libdevice directory|libdevice not found|ptxas.*(not found|No such file)",
            "XLA, the compiler that Keras uses on a card, lacks a file of CUDA's nvcc package",
            "{pip install nvidia-cuda-nvcc-cu12}",
        ),
        (
            r"DNN library is not found|CUDNN_STATUS_NOT_INITIALIZED|CUDNN_STATUS_INTERNAL_ERROR",
            "cuDNN could not start: usually another process holds the card's memory",
            "nvidia-smi\nThen shut down the other notebook: Kernel, Shut Down All Kernels.",
        ),
        (
            r"OOM when allocating|RESOURCE_EXHAUSTED|CUDA_ERROR_OUT_OF_MEMORY|failed to allocate",
            "the card's memory is used up, by this model or by another process",
            "nvidia-smi\nThen shut down other notebooks, or take a smaller batch_size.",
        ),
        (
            r"Ignoring visible gpu device.*(core count|multiprocessor)",
            "TensorFlow leaves out a card that is much weaker than the other",
            "{set TF_MIN_GPU_MULTIPROCESSOR_COUNT 1}",
        ),
        (
            r"Ignoring visible gpu device.*Cuda compute capability",
            "the card is too old for this TensorFlow",
            "{set CUDA_VISIBLE_DEVICES -1}",
        ),
    ]
]

# Errors that end `import tensorflow` or `import keras`, from the most telling to the most general.
IMPORT_ERRORS = [
    Meaning(pattern, meaning, fix)
    for pattern, meaning, fix in [
        (
            r"compiled using NumPy 1\.x|numpy\.dtype size changed|_ARRAY_API not found|"
            r"numpy\._?core\.(multiarray|umath) failed|C extension: \S+ not built",  # the last is pandas's way
            "a package was compiled for another numpy than the one installed (numpy mismatch)",
            "{everything}",
        ),
        (
            r"Incompatible Protobuf|incompatible Protobuf|Descriptors cannot be created directly|google\.protobuf|"
            r"MessageFactory' object has no attribute",
            "protobuf has another version than TensorFlow needs",
            "{everything}",
        ),
        (r"libmetal_plugin", "tensorflow-metal does not fit this TensorFlow", "{pip uninstall -y tensorflow-metal}"),
        (
            r"DLL load failed",
            "a library of Windows is missing: Microsoft's Visual C++ runtime, or AVX on this processor",
            "winget install Microsoft.VCRedist.2015+.x64",
        ),
        (
            r"GLIBCXX_[\d.]+'? not found",
            "the C++ library found first is older than TensorFlow needs; conda brings such a one",
            "conda install -c conda-forge libstdcxx-ng",
        ),
        (
            r"GLIBC_[\d.]+'? not found",
            "this Linux is older than TensorFlow's packages",
            "docker run --rm -it python:3.12-slim bash",
        ),
        (
            r"failed to map segment from shared object",
            "the environment lies on a disk from which programs may not run (noexec), or memory has ended",
            "Make the environment in another folder.",
        ),
        (
            r"cannot allocate memory in static TLS block",
            "another library was loaded before and took the room that this one needs",
            "Import tensorflow before any other library.",
        ),
        (
            r"incompatible architecture|wrong ELF class|cannot open shared object file.*ELF",
            "a package for another kind of processor is installed",
            "{pip install --force-reinstall --no-cache-dir tensorflow}",
        ),
        (
            r"partially initialized module|circular import",
            "a file of the working folder has the name of a library, or the installation is incomplete",
            "{pip install --force-reinstall --no-cache-dir tensorflow keras}",
        ),
        (
            r"undefined symbol|Symbol not found",
            "files of two versions are mixed in one installation",
            "{pip install --force-reinstall --no-cache-dir tensorflow}",
        ),
        (
            r"Unable to import backend|Invalid backend|unknown backend",
            "Keras is told to use a backend that is not there",
            "{set KERAS_BACKEND tensorflow}",
        ),
        (r"No space left on device", "the disk is full", "{pip cache purge}"),
        (r"MemoryError|Cannot allocate memory", "memory has ended", "Close other notebooks and programs."),
        (r"No module named '(?P<module>[\w.]+)'", "a package is missing", "{everything}"),
    ]
]


def meaning_of(line: str, *, has_card: bool) -> Meaning | None:
    """What one log line means; None where it is not known.

    >>> meaning_of("I0000 oneDNN custom operations are on.", has_card=False).meaning
    'faster CPU code; last digits may differ'
    """
    known = [*SERIOUS, *HARMLESS, *([NO_DRIVER] if has_card else NO_CARD)]
    return next((meaning for meaning in known if re.search(meaning.pattern, line)), None)


def import_error(text: str) -> Meaning | None:
    """The cause of a failed import, from its traceback."""
    return next((meaning for meaning in IMPORT_ERRORS if re.search(meaning.pattern, text)), None)


def troubling(line: str) -> bool:
    """Whether a line of unknown meaning speaks of an error: TensorFlow's own levels E and F."""
    return bool(re.match(r"(\d{4}-\d\d-\d\d [\d:.]+: )?[EF](\d{4} | tensorflow| external)", line))
