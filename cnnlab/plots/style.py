"""What all figures share: colours that colour-blind people tell apart, names as they can be drawn, grids of images."""

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.text import Text

from cnnlab.images import resize
from cnnlab.images.levels import levels_of
from cnnlab.images.preparing import reduced

# Okabe and Ito's palette: told apart with any colour vision.
CYCLE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7F7F7F")
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = CYCLE

# Fonts that hold what DejaVu lacks, on the systems people use; the ones that are not installed are passed over.
FURTHER_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "PingFang SC"),
    *("Hiragino Sans", "Apple SD Gothic Neo", "WenQuanYi Zen Hei", "Arial Unicode MS", "Nirmala UI"),
    *("Noto Sans Devanagari", "Segoe UI Symbol"),
)


def new_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """The Axes given, or new ones of `size` inches."""
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def shown(name: object, length: int = 28) -> str:
    """A name as a figure can show it: one line, not too long, no mathematics between dollar signs.

    A letter that no font here holds becomes a box. A name that begins with an underline gets a blank before it, since
    matplotlib leaves such names out of legends.
    """
    text = " ".join(str(name).split()) or "(empty)"
    text = text if len(text) <= length else text[: length - 1] + "…"
    if not text.isascii():
        text = "".join(letter if _has_glyph(letter) else "□" for letter in text)
    return f"{' ' * text.startswith('_')}{text}".replace("$", r"\$")


def finish(ax: Axes, x: str | None = None, y: str | None = None, **legend: Any) -> Axes:
    """Names the axes, takes the frame off at the top and the right, and adds a legend where its options are given."""
    ax.set(**{name: words for name, words in (("xlabel", x), ("ylabel", y)) if words is not None})
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        ax.legend(**{"frameon": False, "fontsize": 8} | legend)
    return readable(ax)


def color_of(number: int) -> str:
    """The colour of the so-manieth of several things; after seven they begin again."""
    return CYCLE[number % len(CYCLE)]


def with_interval(ax: Axes, place: float, rate: np.ndarray, color: str, **dot: Any) -> None:
    """Draws a value as a dot on the line of its interval; `rate` is value, low, high."""
    value, low, high = rate
    ax.plot([low, high], [place, place], color=color, linewidth=2, alpha=dot.get("alpha"))
    ax.plot(value, place, "o", color=dot.pop("face", color), markersize=6, **dot)


def readable(ax: Axes) -> Axes:
    """Gives every text on `ax` further fonts for letters that the first one lacks."""
    for text in ax.findobj(Text):
        if not text.get_text().isascii():
            text.set_fontfamily(_families())
    return ax


@functools.cache
def _families() -> list[str]:
    installed = set(font_manager.fontManager.get_font_names())
    return ["DejaVu Sans", *(name for name in FURTHER_FONTS if name in installed)]


@functools.cache
def _has_glyph(letter: str) -> bool:
    if letter.isspace():
        return True
    return any(font_manager.get_font(font_manager.findfont(name)).get_char_index(ord(letter)) for name in _families())


def image_grid(
    images: Iterable[np.ndarray],
    titles: list[str],
    *,
    columns: int,
    colors: list[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draws uint8 images of any size side by side, each under its title, inside one Axes."""
    rows = -(-len(titles) // columns)
    lines = max(title.count("\n") for title in titles) + 1
    ax = new_axes(ax, (1.35 * columns, (1.3 + 0.2 * lines) * rows))
    ax.axis("off")
    height = 1.3 / (1.3 + 0.2 * lines)  # of a row; the rest is for the title
    for index, (image, title) in enumerate(zip(images, titles, strict=True)):
        row, column = divmod(index, columns)
        cell = ax.inset_axes((column / columns + 0.005, 1 - (row + 1) / rows, 0.97 / columns, height * 0.97 / rows))
        show(cell, image, "nearest" if min(image.shape[:2]) < 64 else None)
        cell.spines[:].set_visible(False)
        cell.set_title(title, fontsize=8, pad=3, color=colors[index] if colors else "black")
    return readable(ax)


def show(ax: Axes, image: np.ndarray, interpolation: Any = "nearest") -> None:
    """An image of 0-255, grey or in colour, without ticks."""
    ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation=interpolation)
    ax.set(xticks=[], yticks=[])


def thumbnails(part: pd.DataFrame, size: int = 160, *, of: pd.DataFrame) -> Iterator[np.ndarray]:
    """The images of a part of a table for looking at, deep ones by one scale for the whole table."""
    levels = levels_of(of)
    return (thumbnail(path, size, levels=levels) for path in part["path"])


def thumbnail(path: str, size: int = 160, *, levels: tuple[float, float] | None = None) -> np.ndarray:
    """An RGB image at most `size` pixels wide and high; a grey tile where the file cannot be read."""
    try:
        return small(path, size, levels=levels)
    except (OSError, ValueError):
        return np.full((size, size, 3), 200, np.uint8)


def small(path: str, size: int, *, levels: tuple[float, float] | None = None) -> np.ndarray:
    """An RGB image at most `size` pixels wide and high."""
    image = reduced(path, (size, size), "pad", levels=levels)
    height, width = image.shape[:2]
    shrink = max(height, width) / size
    if shrink <= 1:
        return image
    return resize(image, (max(1, round(height / shrink)), max(1, round(width / shrink))), "stretch")
