"""JPEG files: their headers without decoding, and their pixels strictly: what other decoders paint over is named.

libjpeg fills in missing or wrong data and only warns; Pillow and OpenCV drop the warnings, simplejpeg passes them on.
They tell of every file whose data ends before its picture is complete or goes on behind it, which damage nearly always
brings about.
"""

import re
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from cnnlab.images.files import UnreadableImageError

START = b"\xff\xd8\xff"
SCAN = b"\xff\xda"
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
MOST_SCANS = 100  # a progressive picture has about ten; thousands make a small file take hours
MOST_PIECES = 100_000  # of a header, bytes that only fill it up among them
MOST_WORK = 2_000_000_000  # scans times pixels, each of which takes about 1.5 ns
SPARE = 16  # bytes that some cameras pad their data with
EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x(\w\w)")
HARMLESS = ("JFIF revision", "Adobe color transform", "Invalid SOS parameters")  # oddities of healthy files
USUAL = {(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4)}  # how many times finer brightness is stored than colour
FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # markers of the header that holds the size
PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


class Header(NamedTuple):
    """What stands before the picture."""

    height: int  # before any turn
    width: int
    layers: tuple[tuple[int, int], ...]  # how finely each channel is stored, across and down
    progressive: bool
    at_once: bool  # whether the first scan has all channels, so that no other one is looked at
    exif: bytes
    profile: bytes


def header(data: bytes, name: str = "the image") -> Header | None:
    """Reads a JPEG's header; None where its size cannot be made out.

    Raises:
        UnreadableImageError: If it is made of more pieces than any program writes.
    """
    position, end, exif, found, pieces = 2, len(data) - 8, b"", None, 0
    profile: list[bytes] = []
    while position < end and data[position] == 0xFF:
        pieces += 1
        if pieces > MOST_PIECES:
            raise UnreadableImageError("damaged: it has more pieces than any program writes", name)
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in WITHOUT_LENGTH:
            position += 2
            continue
        if marker == 0xDA:
            break
        length = (data[position + 2] << 8) | data[position + 3]
        if marker in FRAMES:
            height, width = (int.from_bytes(data[position + at : position + at + 2]) for at in (5, 7))
            steps = data[position + 11 : position + 10 + 3 * data[position + 9] : 3]
            found = height, width, tuple((step >> 4, step & 15) for step in steps), marker in PROGRESSIVE
        elif marker == 0xE1 and not exif and data[position + 4 : position + 10] == b"Exif\0\0":
            exif = data[position + 4 : position + 2 + length]
        elif marker == 0xE2 and data[position + 4 : position + 16] == b"ICC_PROFILE\0":
            profile.append(data[position + 16 : position + 2 + length])
        position += 2 + length
    if found is None:
        return None
    at_once = not found[3] and position < end and data[position + 1 : position + 5 : 3] == bytes([0xDA, len(found[2])])
    return Header(*found, at_once, exif, _joined(profile))


def _joined(parts: list[bytes]) -> bytes:
    """A colour profile, of which each part begins with its number and the count of all."""
    return b"".join(part[2:] for part in sorted(parts, key=lambda part: part[:1]))


def is_usual(header: Header) -> bool:
    """Whether simplejpeg knows this arrangement of brightness and colour; Pillow knows more."""
    if len(header.layers) != 3:
        return len(header.layers) in (1, 4)
    (across, down), *colours = header.layers
    return colours[0] == colours[1] and any(
        (across, down) == (colours[0][0] * times, colours[0][1] * deep) for times, deep in USUAL
    )


def require_few_scans(data: bytes, head: Header | None, name: str) -> None:
    """Refuses what would take minutes to decode: each scan goes over the whole picture."""
    if head is not None and head.at_once:
        return
    most = MOST_SCANS if head is None else min(MOST_SCANS, MOST_WORK // max(head.height * head.width, 1))
    if data.count(SCAN) > most and layout(data)[0] > most:
        problem = f"damaged: more than {most} scans, which would take very long to decode"
        raise UnreadableImageError(problem, name)


def decode(data: bytes, header: Header, reduce: int, name: str) -> NDArray[np.uint8]:
    """The picture as it is stored, RGB or CMYK, reduced by 1, 2, 4 or 8, which spares the decoder most of its work.

    Raises:
        UnreadableImageError: If its data are damaged.
    """
    colours = "CMYK" if len(header.layers) == 4 else "RGB"
    height, width = (-(-side // reduce) for side in (header.height, header.width))
    how = {"colorspace": colours, "min_height": height, "min_width": width, "min_factor": reduce}
    try:
        return simplejpeg.decode_jpeg(data, **how)
    except ValueError as error:
        problem = "" if _is_padding(str(error), data) else _described(str(error))
        if problem:
            raise UnreadableImageError(problem, name) from None
        return simplejpeg.decode_jpeg(data, strict=False, **how)


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


def _is_padding(warning: str, data: bytes) -> bool:
    """Whether the bytes that a warning calls too many, behind the last scan, are one value repeated."""
    too_many = EXTRANEOUS.search(warning)
    count = int(too_many[1]) if too_many and too_many[2] == "d9" else 0
    if not 0 < count <= SPARE:
        return False
    end = layout(data)[1]
    return len(set(data[end - count : end])) == 1


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
