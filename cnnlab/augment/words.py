"""Says in a few words what was sampled for an image."""

from collections.abc import Callable

from cnnlab.augment.sampling import SampledParameters

Numbers = dict[str, float]

WORDS: dict[str, Callable[[Numbers], str]] = {  # how a person reads each operation
    "flip": lambda p: _flipped(bool(p.get("flip_x")), bool(p.get("flip_y"))),
    "rotate": lambda p: f"{_signed(p['rotate'])}°",
    "zoom": lambda p: f"× {p['zoom']:.2f}",
    "shift": lambda p: f"{_signed(100 * p['shift_x'])} %, {_signed(100 * p['shift_y'])} %",
    "shear": lambda p: f"{_signed(p['shear'])}°",
    "crop": lambda p: f"{100 * p['crop_width'] * p['crop_height']:.0f} % kept",
    "brightness": lambda p: _signed(p["brightness"]),
    "contrast": lambda p: f"× {p['contrast']:.2f}",
    "saturation": lambda p: f"× {p['saturation']:.2f}",
    "hue": lambda p: f"{_signed(360 * p['hue'])}°",
    "grayscale": lambda p: "grey" if p["grayscale"] else "as is",
    "blur": lambda p: f"σ = {p['blur']:.1f} px",
    "noise": lambda p: f"σ = {abs(p['noise']):.1f}",
    "erase": lambda p: f"{100 * p['erase_width'] * p['erase_height']:.0f} %",
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
        texts.append(", ".join(f"{name} {WORDS[name](numbers)}" for name in names))
    return texts
