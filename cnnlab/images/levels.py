"""Which values of deep images (16-bit, 32-bit, float) become black and white: one scale for a whole data set."""

import re
from typing import Any

import numpy as np

Levels = tuple[float, float]
OVERSHOOT = 1 / 255  # by which floats of 0 to 1 may miss them, as after resampling
TEXT = re.compile(r"(-?[\d.]+(?:e[+-]?\d+)?)-(-?[\d.]+(?:e[+-]?\d+)?)")


def require_levels(levels: object) -> Levels | None:
    """Refuses what is no (low, high) with low below high; None stays None."""
    if levels is None:
        return None
    pair = levels if isinstance(levels, (tuple, list)) else ()
    numbers = [isinstance(level, (int, float, np.number)) and not isinstance(level, bool) for level in pair]
    if numbers == [True, True] and np.isfinite(np.asarray(pair, np.float64)).all() and pair[0] < pair[1]:
        return float(pair[0]), float(pair[1])
    raise ValueError(
        "`levels` must be (low, high), the values that become black and white, for example (0, 4095) for images of 12 "
        f"bits. Received: levels={levels!r}."
    )


def levels_of(table: Any) -> Levels | None:
    """The values that become black and white in the deep images of a table, from what `audit.scan` found.

    Args:
        table: What `audit.scan` returned, or some of its rows; of tables put together, what holds the levels of all.

    Returns:
        (low, high), as `pipelines.load` and `images.read` take it; None where there are no deep images.

    Raises:
        ValueError: If the column levels holds something else than two numbers.

    Example:
        >>> import pandas as pd
        >>> levels_of(pd.DataFrame({"path": ["1.png", "2.png"], "levels": ["0-4095", "-1024-3071"]}))
        (-1024.0, 4095.0)
    """
    if "levels" not in table:
        return None
    found = [levels_from(text) for text in table["levels"].dropna().unique()]
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None


def levels_from(text: object) -> Levels:
    """(low, high) from a text such as "0-4095"."""
    match = TEXT.fullmatch(str(text).strip())
    if match is None or not float(match[1]) < float(match[2]):
        raise ValueError(f"The column levels expects two numbers such as '0-4095'. Received: {text!r}.")
    return float(match[1]), float(match[2])


def as_text(levels: Levels) -> str:
    """(low, high) as `levels_from` reads it."""
    return "-".join(f"{level:.12g}" for level in levels)


def common_levels(found: list[Levels], windows: list[Levels]) -> Levels | None:
    """One scale for the smallest and largest numbers of all deep images of a set; None where there are none.

    It holds the windows that files ask for, as DICOM images do. Else numbers that are not negative begin at 0 and end
    at the largest of some usual number of bits, floats of 0-1 at 1, others at 255; any others reach
    from the smallest to the largest.
    """
    if not found:
        return None
    if windows:
        return min(low for low, _ in windows), max(high for _, high in windows)
    low, high = min(low for low, _ in found), max(high for _, high in found)
    if low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
        return 0.0, 1.0
    whole = all(level.is_integer() for pair in found for level in pair)
    if low >= 0 and (whole or high <= 255):
        usual = (255, 1023, 4095, 16383, 65535) if whole else (1, 255)
        return 0.0, float(next((top for top in usual if high <= top), high))
    return low, max(high, low + 1)
