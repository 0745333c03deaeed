"""`export.json`: what an export says of itself, checked before anything in it is believed or opened."""

import json
import math
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import fastjsonschema

from cnnlab._common import read_json
from cnnlab.images import Preparation

ABOUT = "export.json"
CARD = "README.md"
VERSION = 3
FIRST = 2  # what cnnlab 0.1.0 wrote
FILE_OF = {
    "keras": "model.keras",
    "savedmodel": "savedmodel",
    "litert": "model.tflite",
    "litert_float16": "model_float16.tflite",
    "litert_int8": "model_int8.tflite",
    "onnx": "model.onnx",
}
SECTIONS = ("purpose", "data", "limits", "licence", "contact")
LARGEST_FILE = 4 * 2**30  # bytes of a model
FACTS = ("megabytes", "images", "agreement", "largest_difference", "p50_ms", "p95_ms")
PREPARATION = ("image_size", "channels", "resize", "levels")

TEXT = {"type": "string", "maxLength": 1000}
LONG_TEXT = {"type": "string", "maxLength": 100_000}
AMOUNT = {"type": "number", "minimum": 0, "maximum": 1e12}
COUNT = {"type": "integer", "minimum": 0, "maximum": 1e15}
DIGEST = {"type": "string", "maxLength": 64}
PAIR = {"type": "array", "minItems": 2, "maxItems": 2}
FILE = {
    "type": "object",
    "required": ["sha256", *FACTS],
    "properties": {"sha256": DIGEST} | dict.fromkeys(FACTS, AMOUNT),
}
REQUIRED: dict[str, Any] = {
    "classes": {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 100_000, "uniqueItems": True},
    "image_size": PAIR | {"items": {"type": "integer", "minimum": 1, "maximum": 4096}},
    "channels": {"enum": [1, 3]},
    "resize": {"enum": ["fit", "pad", "stretch"]},
    "temperature": {"type": "number", "minimum": 1e-5, "maximum": 1e5},  # scikit-learn's search stays within
    "checked_on": COUNT,
    "network": TEXT,
    "weights": COUNT,
    "made": TEXT,
    "made_with": {"type": "object", "maxProperties": 50, "propertyNames": TEXT, "additionalProperties": TEXT},
    "formats": {
        "type": "object",
        "minProperties": 1,
        "properties": dict.fromkeys(FILE_OF, FILE),
        "additionalProperties": False,
    },
}
ADDED: dict[str, Any] = {  # since version 0.1.0
    "levels": {"anyOf": [{"type": "null"}, PAIR | {"items": {"type": "number", "minimum": -1e12, "maximum": 1e12}}]},
    "threshold": {
        "type": "object",
        "maxProperties": 1,
        "additionalProperties": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
    },
    "about": {"type": "object", "properties": dict.fromkeys(SECTIONS, LONG_TEXT), "additionalProperties": False},
    "card": DIGEST,
}
require_schema = fastjsonschema.compile(
    {"type": "object", "required": [*REQUIRED], "properties": REQUIRED | ADDED}, use_default=False
)


@dataclass(frozen=True)
class Description:
    """What an export is."""

    classes: list[str]
    preparation: Preparation
    temperature: float
    checked_on: int  # images
    network: str
    weights: int
    made: str
    made_with: dict[str, str]  # tool to version
    formats: dict[str, dict[str, Any]]  # to sha256 and `FACTS`
    threshold: dict[str, float] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)
    card: str = ""  # SHA-256 of the model card that was written last
    grey_by_mean: bool = False  # as in version 0.1.0

    def to_json(self) -> str:
        """The text of `export.json`."""
        values = {"version": FIRST if self.grey_by_mean else VERSION} | asdict(self) | self.preparation.to_dict()
        del values["preparation"]
        if values.pop("grey_by_mean"):
            values["channels"] = 1
        # JSON has no infinity: null means never
        values["threshold"] = {name: None if least > 1 else least for name, least in self.threshold.items()}
        require_schema(values)  # what is written can be read
        return json.dumps(values, ensure_ascii=False, indent=1, allow_nan=False)


def read_description(folder: Path) -> Description:
    """What `export.json` says; a ValueError where it is damaged or of another version."""
    if not (folder / ABOUT).is_file():
        raise FileNotFoundError(
            f"Expected a folder that `serving.export` wrote. {str(folder)!r} has no {ABOUT}. Export the model first."
        )
    path = file_of_export(folder, ABOUT)
    try:
        values = read_json(path)
        version = values.get("version") if isinstance(values, dict) else None
        if not isinstance(version, int) or isinstance(version, bool):
            raise ValueError("it says no `version`")
        if version in (FIRST, VERSION):
            return _described(values)
    except ValueError as error:
        reason = str(error).removesuffix(".")[:300].replace("data.", "")
        raise ValueError(f"{str(path)!r} is damaged: {reason}. Export the model again.") from error
    raise ValueError(
        f"{str(folder)!r} was exported by another version of cnnlab (format {version}; this one reads {FIRST} to "
        f"{VERSION}). Export the model again, or install that version."
    )


def _described(values: Mapping[str, Any]) -> Description:
    json.dumps(values, allow_nan=False)  # "NaN" is in no range, and below none
    require_schema(values)
    for name in values.get("threshold", {}):
        if name not in values["classes"]:
            raise ValueError(f"`threshold` names {name[:80]!r}, which is not a class")
    grey_by_mean = values["version"] == FIRST and values["channels"] == 1  # of what was prepared in colour
    known = {name: values[name] for name in REQUIRED | ADDED if name in values}
    parts = {name: known.pop(name) for name in PREPARATION if name in known}
    known["preparation"] = Preparation.from_dict(parts | ({"channels": 3} if grey_by_mean else {}))
    known["threshold"] = {
        name: math.inf if least is None else float(least) for name, least in known.get("threshold", {}).items()
    }
    return Description(**known, grey_by_mean=grey_by_mean)


def file_of_export(folder: Path, name: str) -> Path:
    """Where a file of an export is, or a folder of files; nothing outside of the export, and no pipe, is ever read."""
    path, root = folder / name, folder.resolve()
    if not path.exists():
        raise FileNotFoundError(f"Expected {name} in the export {str(folder)!r}; it is gone. Export the model again.")
    for part in [path, *(path.rglob("*") if path.is_dir() else [])]:
        if not part.resolve().is_relative_to(root):
            raise ValueError(
                f"{str(part)!r} is a link that leads out of the export. Copy the file itself into the folder."
            )
        status = part.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise ValueError(f"{str(part)!r} is not a regular file, but a pipe or a device. Export the model again.")
        if status.st_size > LARGEST_FILE:
            raise ValueError(
                f"{str(part)!r} has {status.st_size / 2**30:,.0f} GiB; models of up to {LARGEST_FILE >> 30} are opened."
            )
    return path
