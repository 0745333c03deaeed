"""Says in a few words what was sampled for an image."""

from collections.abc import Callable

from cnnlab.augment.sampling import SampledParameters

Numbers = dict[str, float]

# Per operation: the parameter that orders its strength, and how a person reads it.
WORDS: dict[str, tuple[str, Callable[[Numbers], str]]] = {
    "flip": ("flip_x", lambda p: _flipped(bool(p.get("flip_x")), bool(p.get("flip_y")))),
    "rotate": ("rotate", lambda p: f"{_signed(p['rotate'])}°"),
    "zoom": ("zoom", lambda p: f"× {p['zoom']:.2f}"),
    "shift": ("shift_x", lambda p: f"{_signed(100 * p['shift_x'])} %, {_signed(100 * p['shift_y'])} %"),
    "shear": ("shear", lambda p: f"{_signed(p['shear'])}°"),
    "crop": ("crop_width", lambda p: f"{100 * p['crop_width'] * p['crop_height']:.0f} % kept"),
    "brightness": ("brightness", lambda p: _signed(p["brightness"])),
    "contrast": ("contrast", lambda p: f"× {p['contrast']:.2f}"),
    "saturation": ("saturation", lambda p: f"× {p['saturation']:.2f}"),
    "hue": ("hue", lambda p: f"{_signed(360 * p['hue'])}°"),
    "grayscale": ("grayscale", lambda p: "grey" if p["grayscale"] else "as is"),
    "blur": ("blur", lambda p: f"σ = {p['blur']:.1f} px"),
    "noise": ("noise", lambda p: f"σ = {abs(p['noise']):.1f}"),
    "erase": ("erase_width", lambda p: f"{100 * p['erase_width'] * p['erase_height']:.0f} %"),
}


def _signed(value: float) -> str:
    whole = round(value)
    return f"{'−' if whole < 0 else '+'}{abs(whole)}" if whole else "0"


def _flipped(sideways: bool, upright: bool) -> str:
    if sideways and upright:
        return "both ways"
    return "left-right" if sideways else "top-bottom" if upright else "as is"


def describe(operations: tuple[str, ...], sampled: SampledParameters) -> list[str]:
    """One text per image, with the operations in order, separated by commas."""
    names = [name for name in operations if name in WORDS]
    count = len(next(iter(sampled.values()), []))
    texts = []
    for index in range(count):
        numbers = {name: float(values[index]) for name, values in sampled.items()}
        texts.append(", ".join(f"{name} {WORDS[name][1](numbers)}" for name in names))
    return texts
