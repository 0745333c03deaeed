"""Finds damage inside JPEG data that decoders pass over in silence.

libjpeg paints over missing or wrong data and only counts a warning, which Pillow does not pass on. But where the data
of a picture ends is known, and a healthy picture is complete exactly there: neither before nor after.
"""

import io
import math
import re
from typing import Any, NamedTuple

from PIL import JpegImagePlugin

FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}  # start-of-frame markers
SEQUENTIAL = {0xC0, 0xC1}
MARKER = re.compile(rb"\xff[^\x00\xff]")
MOST_SCANS = 100  # a progressive picture has about ten; thousands make a small file take hours
SPARE = 16  # bytes: some cameras pad the data, and the decoder reads ahead
PADDING = b"\xff\x00" * 8  # bits of 1, the filling that the format prescribes: as much as a decoder reads ahead


class Layout(NamedTuple):
    """Where the parts of a JPEG file lie."""

    frame: int  # the start-of-frame marker, which names the kind of compression
    scans: int
    start: int  # of the data of the last scan
    end: int  # behind it, where its closing marker begins
    closed: bool  # whether the picture has its end marker
    restarts: bytes  # restart markers in that data
    wanted: int  # how many of them there must be; -1 where that is not known


def layout(data: bytes) -> Layout:
    """Walks through the segments of a JPEG file up to its end marker; tolerates anything."""
    frame, scans, start, end, restarts, interval, units = 0, 0, 0, 0, b"", 0, -1
    at = 2
    while 0 <= at <= len(data) - 4:
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:
            at = data.find(b"\xff", at + 1)
            continue
        if marker == 0xD9:
            break
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        body = data[at + 4 : at + 2 + int.from_bytes(data[at + 2 : at + 4])]
        at += 4 + len(body)
        if marker in FRAMES:
            frame, units = marker, _units(body)
        elif marker == 0xDD and len(body) == 2:
            interval = int.from_bytes(body)
        elif marker == 0xDA:
            scans, start = scans + 1, at
            end, restarts = _data(data, start)
            at = end
            if scans > MOST_SCANS:
                break
    wanted = -1 if units < 0 else math.ceil(units / interval) - 1 if interval else 0
    return Layout(frame, scans, start, end, at >= 0 and data[at : at + 2] == b"\xff\xd9", restarts, wanted)


def _data(data: bytes, start: int) -> tuple[int, bytes]:
    """Where the data of a scan ends, and its restart markers."""
    restarts = bytearray()
    for found in MARKER.finditer(data, start):
        marker = data[found.start() + 1]
        if not 0xD0 <= marker <= 0xD7:
            return found.start(), bytes(restarts)
        restarts.append(marker)
    return len(data), bytes(restarts)


def _units(frame: bytes) -> int:
    """How many coded units (blocks of 8 to 16 pixels a side) the frame header asks for; -1 where it is broken."""
    if len(frame) < 6 or len(frame) < 6 + 3 * frame[5] or not frame[5]:
        return -1
    height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    samplings = [(frame[7 + 3 * part] >> 4, frame[7 + 3 * part] & 15) for part in range(frame[5])]
    across = 1 if len(samplings) == 1 else max(sampling[0] for sampling in samplings)
    down = 1 if len(samplings) == 1 else max(sampling[1] for sampling in samplings)
    return math.ceil(width / (8 * across)) * math.ceil(height / (8 * down)) if across and down and height else -1


def load(image: JpegImagePlugin.JpegImageFile, data: bytes) -> str:
    """Decodes the picture, once, and returns what is wrong with its data, or "".

    Args:
        image: Opened on `data`, not yet loaded.
        data: The file.

    Raises:
        Exception: Whatever Pillow raises where it cannot decode.
    """
    feed = Feed(data)
    if feed.layout.scans > MOST_SCANS:
        raise ValueError(f"more than {MOST_SCANS} scans, which would take very long to decode")
    if not feed.layout.closed:
        return "truncated: the end of the picture is missing"
    watched = feed.watch(image)
    image.fp = feed
    image.load()
    return feed.damage() if watched else ""


class Feed(io.BytesIO):
    """A JPEG file that hands out the last bytes of its picture late, and looks whether they were needed."""

    def __init__(self, data: bytes):
        super().__init__(data)
        self.layout = layout(data)
        self._image: JpegImagePlugin.JpegImageFile | None = None
        self._marks: list[tuple[tuple[int, int], Any]] = []
        self._complete: list[bool] = []  # whether the last row was there, before each of the last two helpings

    def watch(self, image: JpegImagePlugin.JpegImageFile) -> bool:
        """Starts watching, where the kind of compression allows it: rows must come out while data goes in."""
        if self.layout.frame not in SEQUENTIAL or self.layout.scans != 1 or image.mode not in ("L", "RGB", "CMYK"):
            return False
        self._image, self._marks = image, _marks(image)
        return True

    def read(self, size: int | None = -1) -> bytes:
        """Gives the decoder the file in three helpings: nearly all data, the rest of it, the end marker."""
        if self._image is None:
            return super().read(size)
        end, nearly = self.layout.end, max(self.layout.end - SPARE, self.layout.start)
        at = self.tell()
        if at == 0:
            put = self._image.im.putpixel
            for place, value in self._marks:
                put(place, value)
        if at < nearly:
            return super().read(min(size or nearly, nearly - at))
        if len(self._complete) < 2:
            get = self._image.im.getpixel
            self._complete.append(any(get(place) != value for place, value in self._marks))
        if at == nearly < end:
            return super().read(end - at) + PADDING
        return super().read(size)

    def damage(self) -> str:
        """What the decoder's appetite tells: it must want the last helping of data, and no more."""
        restarts, wanted = self.layout.restarts, self.layout.wanted
        in_turn = restarts == bytes(0xD0 + number % 8 for number in range(len(restarts)))
        if not in_turn or (wanted >= 0 and len(restarts) - wanted not in (0, 1)):
            return "damaged: parts of the picture's data are missing or out of order"
        if self.layout.end <= self.layout.start or self._complete == [False, False]:
            return "damaged: the picture's data ends before the picture is complete"
        if self._complete[:1] != [False]:
            return "damaged: the picture's data goes on after the picture is complete"
        return ""


def _marks(image: JpegImagePlugin.JpegImageFile) -> list[tuple[tuple[int, int], Any]]:
    """Pixels of the last row, and values they get before decoding: a sequence that no JPEG comes out with."""
    width, height = image.size
    bands = len(image.getbands())
    columns = range(max(0, width - 6), width)
    return [((x, height - 1), 255 * (x % 2) if bands == 1 else (255 * (x % 2),) * bands) for x in columns]
