"""Files that Pillow would walk through in Python piece by piece for minutes: refused, or brought to a quick form."""

import re
import struct

import numpy as np

from cnnlab.images.files import MEMORY, UnreadableImageError
from cnnlab.images.limits import require_sensible

SMALL = 2**18  # bytes; any walk through less is over in a moment
MOST_PIECES = 200_000  # a real file of the largest size has fewer: pieces of PNG have 8 kB and more, of GIF 255 bytes
MOST_TAGS = 4096  # of a TIFF
MOST_TEXT = 2**23  # bytes of a PPM; Pillow takes 2 seconds at most
MOST_COMMENTS = 1000  # in a PPM of text; for each, Pillow copies a megabyte
WINDOW = 4096  # bytes within which the header of a PPM ends
PPM = re.compile(rb"P([1-6])\s(?:\s|#[^\r\n]*[\r\n])*(\d{1,10})(?:\s|#[^\r\n]*[\r\n])+(\d{1,10})(?=\s|#)")
MAXIMUM = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])+(\d{1,10})(?=\s|#)")


def require_few_pieces(data: bytes, name: str) -> None:
    """Refuses PNG, GIF, TIFF and PPM files that are made of more pieces than any program writes."""
    if len(data) <= SMALL:
        return
    many = False
    if data[:4] == b"\x89PNG":
        many = _png_pieces(data) > MOST_PIECES
    elif data[:4] == b"GIF8":
        many = _gif_pieces(data) > MOST_PIECES
    elif data[:2] in (b"II", b"MM") and data[2:4] in (b"*\0", b"\0*", b"+\0", b"\0+"):  # "+" has numbers of 64 bits
        order, big = "<" if data[:1] == b"I" else ">", b"+" in data[2:4]
        (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        many = start + 8 <= len(data) and struct.unpack_from(order + ("Q" if big else "H"), data, start)[0] > MOST_TAGS
    elif re.match(rb"P[1-6]\s", data):
        head = PPM.match(data[:WINDOW])
        many = head is None or (head[1] not in b"14" and MAXIMUM.match(data[:WINDOW], head.end()) is None)
        many = many or (data[1:2] in b"123" and data.count(b"#") > MOST_COMMENTS)
    if many:
        raise UnreadableImageError("damaged: it has more pieces than any program writes", name)


def _png_pieces(data: bytes) -> int:
    count, at = 0, 8
    while at + 8 <= len(data) and count <= MOST_PIECES:
        at += 12 + int.from_bytes(data[at : at + 4])
        count += 1
    return count


def _gif_pieces(data: bytes) -> int:
    """Of the header and the first two frames, which is as far as anybody looks; of real data only the short ones."""
    count, pictures = 0, 0
    at = 13 + _colours(data[10])
    while at + 10 < len(data) and pictures < 2 and data[at] != 0x3B and count <= MOST_PIECES:
        count += 1
        if data[at] == 0x21:
            at += 2
        elif data[at] == 0x2C:
            at += 11 + _colours(data[at + 9])
            pictures += 1
        else:
            at += 1
            continue
        while at < len(data) and data[at] and count <= MOST_PIECES:
            count += data[at] < 128
            at += 1 + data[at]
        at += 1
    return count


def _colours(flags: int) -> int:
    """Bytes of a palette."""
    return 3 << ((flags & 7) + 1) if flags & 128 else 0


def with_plain_numbers(data: bytes, name: str) -> bytes:
    """A PPM of numbers up to another limit than 255 as one of bytes; all other data as they are.

    Pillow reads such numbers one by one: half a minute for a photograph. The pixels are those that Pillow would give.

    Raises:
        UnreadableImageError: If it has too few numbers, or is much text, which nobody reads quickly.
    """
    head = PPM.match(data[:WINDOW])
    if head is None or head[1] == b"4":
        return data
    kind, width, height = int(head[1]), int(head[2]), int(head[3])
    if kind < 4:
        if len(data) > MOST_TEXT:
            size = f"({len(data) / 2**20:.1f} MiB, at most {MOST_TEXT >> 20})"
            raise UnreadableImageError(
                f"too large: as text it would take very long to read {size}. Save it as PNG", name
            )
        return data
    found = MAXIMUM.match(data[:WINDOW], head.end())
    maximum = int(found[1]) if found else 0
    if found is None or not 0 < maximum < 65536 or maximum == 255 or (kind == 5 and maximum == 65535):
        return data  # where there is something wrong, Pillow says what
    channels = 3 if kind == 6 else 1
    each, count = 16 * channels + 7, height * width * channels
    require_sensible((height, width), each, name)
    with MEMORY.hold(height * width * each):
        dtype = np.dtype(">u2" if maximum > 255 else np.uint8)
        if len(data) - found.end() - 1 < count * dtype.itemsize:
            raise UnreadableImageError("truncated: it has fewer numbers than pixels", name)
        values = np.frombuffer(data, dtype, count, found.end() + 1)
        top = 65535 if maximum > 255 and channels == 1 else 255
        scaled = np.minimum(np.rint(np.arange(65536) / maximum * top), top).astype(">u2" if top > 255 else np.uint8)
        return b"P%d\n%d %d\n%d\n" % (kind, width, height, top) + scaled[values].tobytes()
