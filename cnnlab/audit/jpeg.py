"""Decodes JPEG files strictly: what other decoders paint over in silence is named.

libjpeg fills in missing or wrong data and only warns; Pillow drops the warnings, simplejpeg passes them on. They tell
of every file whose data ends before its picture is complete or goes on behind it, which damage nearly always brings
about.
"""

import re

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import JpegImagePlugin

MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
MOST_SCANS = 100  # a progressive picture has about ten; thousands make a small file take hours
SPARE = 16  # bytes that some cameras pad their data with
EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x(\w\w)")
HARMLESS = ("JFIF revision", "Adobe color transform", "Invalid SOS parameters")  # oddities of healthy files
USUAL = {(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4)}  # how many times finer brightness is stored than colour
COLOURS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}


def decode(image: JpegImagePlugin.JpegImageFile, data: bytes, side: int) -> tuple[NDArray[np.uint8] | None, str]:
    """Decodes the picture and says what is wrong with its data.

    Args:
        image: Opened on `data`, not loaded.
        data: The file.
        side: The picture comes at a half, a quarter or an eighth of its size where that leaves it at least this many
            pixels high and wide.

    Returns:
        The pixels (None for one that only Pillow can decode), and the problem or "".
    """
    scans, end = layout(data)
    if scans > MOST_SCANS:
        return None, f"damaged: more than {MOST_SCANS} scans, which would take very long to decode"
    if image.mode not in COLOURS or not _is_usual(image):
        return None, ""
    shrink = next(factor for factor in (8, 4, 2, 1) if factor == 1 or min(image.size) // side >= factor)
    width, height = (-(-length // shrink) for length in image.size)
    how = {"colorspace": COLOURS[image.mode], "min_width": width, "min_height": height, "min_factor": shrink}
    try:
        pixels = simplejpeg.decode_jpeg(data, **how)
    except ValueError as error:
        problem = "" if _is_padding(str(error), data[:end]) else _described(str(error))
        if problem:
            return None, problem
        pixels = simplejpeg.decode_jpeg(data, strict=False, **how)
    return (None if image.mode == "CMYK" else pixels), ""  # Pillow knows when CMYK is stored inverted


def layout(data: bytes) -> tuple[int, int]:
    """How many scans a file has, up to one more than allowed, and where the last one ends; tolerates anything."""
    scans, end, at = 0, 0, 2
    while 0 <= at <= len(data) - 4 and scans <= MOST_SCANS:
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:
            at = data.find(b"\xff", at + 1)
        elif marker == 0xD9:
            break
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
            if marker == 0xDA:
                following = MARKER.search(data, at)
                scans, end = scans + 1, following.start() if following else len(data)
                at = end
    return scans, end


def _is_usual(image: JpegImagePlugin.JpegImageFile) -> bool:
    """Whether simplejpeg knows this arrangement of brightness and colour; Pillow knows more."""
    if len(image.layer) != 3:
        return True
    (_, across, down, _), *colours = image.layer
    return colours[0][1:3] == colours[1][1:3] and any(
        (across, down) == (colours[0][1] * times, colours[0][2] * deep) for times, deep in USUAL
    )


def _is_padding(warning: str, data: bytes) -> bool:
    """Whether the bytes that a warning calls too many are one value repeated; data ends behind the last scan."""
    too_many = EXTRANEOUS.search(warning)
    count = int(too_many[1]) if too_many and too_many[2] == "d9" else 0
    return 0 < count <= SPARE and len(set(data[-count:])) == 1


def _described(warning: str) -> str:
    """The problem that a message of libjpeg tells of, or "" where it is none."""
    if any(words in warning for words in HARMLESS):
        return ""
    if "Premature end of JPEG file" in warning:
        return "truncated: the end of the picture is missing"
    if "premature end of data" in warning:
        return "damaged: the picture's data ends before the picture is complete"
    too_many = EXTRANEOUS.search(warning)
    if too_many:
        return f"damaged: {int(too_many[1]):,} bytes too many in the picture's data"
    return f"damaged: {warning.removeprefix('Corrupt JPEG data: ') or 'it cannot be decoded'}"
