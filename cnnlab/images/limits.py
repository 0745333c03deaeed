"""What is refused before it is decoded, since it would take the memory of the machine, or hours; and why, in words."""

import re
import struct
import zlib

import numpy as np
from PIL import Image, Jpeg2KImagePlugin, TiffImagePlugin, UnidentifiedImageError

from cnnlab.images.files import ENDINGS, MEMORY, UnreadableImageError

OTHERS = {  # what files named like images often are instead: first bytes, from where, name
    b"%PDF": (0, "a PDF document"),
    b"%!PS": (0, "a PostScript document"),
    b"PK\x03\x04": (0, "a ZIP archive"),
    b"8BPS": (0, "a Photoshop file"),
    b"version https://": (0, "a pointer of Git LFS. Fetch the file itself: git lfs pull"),
    b"<": (0, "text that starts like HTML, XML or SVG"),
    b"{": (0, "text that starts like JSON"),
}
MAX_PIXELS = 178_956_970  # a larger header is a mistake or an attack (Pillow's own limit)
# Bytes that decoding takes for each pixel, at the worst: of most formats 4 for Pillow's image and 3 for the result.
BYTES = {"WEBP": 18, "AVIF": 20, "JPEG2000": 26, "HEIF": 20}
DEEP_BYTES = 12
MAX_WEBP_SIDE = 16_384  # pixels, as the format says; a frame around a smaller picture may claim far more
MAX_TILE = 4096 * 4096  # pixels of a tile in a TIFF that is smaller than that
MOST_TILES = 1024  # of a JPEG 2000 file; its decoder takes 10 kB for each before it looks for any data
MOST_BLOCKS = 2**18  # of the same; each takes some microseconds, however few bytes it has
CODING = re.compile(rb"\xff[\x52\x53]\x00[\x09-\x30]")
MOST_RUNS = 2**22  # bytes or pixels of a BMP that is packed by run lengths, which Pillow goes through one by one
SMALL = 2**18  # bytes; any walk through less is over in a moment
MOST_PIECES = 200_000  # a real file of the largest size has fewer: pieces of PNG have 8 kB and more, of GIF 255 bytes
MOST_TAGS = 4096  # of a TIFF
MOST_TEXT = 2**23  # bytes of a PPM; Pillow takes 2 seconds at most
MOST_COMMENTS = 1000  # in a PPM of text; for each, Pillow copies a megabyte
WINDOW = 4096  # bytes within which the header of a PPM ends
PPM = re.compile(rb"P([1-6])\s(?:\s|#[^\r\n]*[\r\n])*(\d{1,10})(?:\s|#[^\r\n]*[\r\n])+(\d{1,10})(?=\s|#)")
MAXIMUM = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])+(\d{1,10})(?=\s|#)")


def require_sensible(size: tuple[int, int], each: int, name: str) -> None:
    """Refuses pictures of no pixels, or of more than `MAX_PIXELS` or the budget hold at `each` bytes a pixel."""
    height, width = size
    limit = min(MAX_PIXELS, MEMORY.limit // each)
    if height * width > limit:
        raise UnreadableImageError(
            f"too large: it claims {width} × {height} pixels; more than {limit:,} of its kind are refused unread, as "
            "a small file may unfold to more than the memory of this machine", name,
        )  # fmt: skip
    if height * width == 0:
        raise UnreadableImageError("damaged: it has no pixels", name)


def require_all_rows(image: Image.Image, name: str) -> None:
    """Refuses a TIFF that has no data for its last rows, which Pillow fills up with black and says nothing."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        rows = image.tag_v2[TiffImagePlugin.IMAGELENGTH]  # `height` may be that of the image after its EXIF turn
        there = max((extents[3] for _, extents, *_ in image.tile if extents), default=0)
        if there < rows:
            raise UnreadableImageError(f"truncated: it has data for {there:,} of its {rows:,} rows", name)


def require_colours_together(image: Image.Image, name: str) -> None:
    """Refuses a TIFF of 16 bits that stores one colour after the other, which no decoder here puts together."""
    tags = getattr(image, "tag_v2", {})
    deep = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (8,))) > 8
    if deep and len(image.getbands()) > 1 and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2:
        raise UnreadableImageError(
            "not an image that can be read here: a TIFF of 16 bits with one colour stored after the other. Save it "
            "with the colours of a pixel together (planar configuration 1)",
            name,
        )


def require_whole(data: bytes, name: str) -> None:
    """Refuses damage that Pillow passes over: wrong checksums in a PNG, a file that ends before it says it does."""
    if data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise UnreadableImageError("truncated: the file is shorter than it declares", name)
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return
    at = 8
    while at + 12 <= len(data):
        size, part = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        body = memoryview(data)[at + 4 : at + 8 + size]
        if len(body) < 4 + size:
            break
        wanted = int.from_bytes(data[at + 8 + size : at + 12 + size])
        if part in (b"IHDR", b"PLTE", b"IDAT", b"IEND") and zlib.crc32(body) != wanted:
            raise UnreadableImageError(f"damaged: the checksum of its {part.decode()} data is wrong", name)
        at += 12 + size
        if part == b"IEND":
            return
    raise UnreadableImageError("truncated: the end of the picture is missing", name)


def require_plain_tiles(image: Image.Image, data: bytes, name: str) -> None:
    """Refuses files whose tiles are many or large, for which decoders take memory that the picture does not need."""
    tile = 0
    if isinstance(image, Jpeg2KImagePlugin.Jpeg2KImageFile):
        at = data.find(b"\xff\x4f\xff\x51") + 8  # the codestream's own size, whatever the header around it says
        if at >= 8 and len(data) >= at + 36:
            right, bottom, left, top, across, down, left_tile, top_tile = struct.unpack_from(">8I", data, at)
            count = -(-(right - left_tile) // max(across, 1)) * -(-(bottom - top_tile) // max(down, 1))
            channels = int.from_bytes(data[at + 32 : at + 34])
            if (right - left, bottom - top) != image.size or count > MOST_TILES or channels > 4:
                raise UnreadableImageError("damaged: its header contradicts itself", name)
        if _jpeg2000_blocks(data, image.width * image.height * len(image.getbands())) > MOST_BLOCKS:
            raise UnreadableImageError("damaged: its blocks are so small that decoding would take very long", name)
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        width, height = (int(image.tag_v2.get(tag, 0)) for tag in (322, 323))
        tile = width * height
    elif (
        any(part[0] == "bmp_rle" for part in getattr(image, "tile", []))
        and max(len(data), image.width * image.height) > MOST_RUNS
    ):
        raise UnreadableImageError(
            "too large: packed by run lengths it would take very long to read. Save it as PNG", name
        )
    if tile > MAX_TILE and tile > 4 * image.width * image.height:
        raise UnreadableImageError(f"damaged: tiles of {tile:,} pixels in a picture of less", name)


def _jpeg2000_blocks(data: bytes, values: int) -> float:
    """How many blocks a JPEG 2000 file of so many values is cut into, by the finest of its settings."""
    most = 0.0
    for found in CODING.finditer(data):
        at = found.end() + (5 if found[0][1] == 0x52 else 2)  # for the whole picture, or for one of its colours
        if len(data) < at + 3:
            continue
        levels, across, down = data[at], data[at + 1] + 2, data[at + 2] + 2
        sizes = data[at + 5 : at + 6 + levels] if data[at - (5 if found[0][1] == 0x52 else 1)] & 1 else b""
        for level in range(min(levels, 32) + 1):
            size = sizes[level] if level < len(sizes) else 0xFF
            area = min(across, size & 15) + min(down, size >> 4)
            most = max(most, values / 4.0 ** (levels - level) / 2.0**area)
    return most


def taken_by_webp(data: bytes, name: str) -> int:
    """The memory that Pillow takes for a WebP file before it can be asked for its size; 0 for any other file."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return 0
    if data[12:16] == b"VP8X":
        width, height = int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    elif data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", data[26:30]))
    if max(height, width) > MAX_WEBP_SIDE:
        raise UnreadableImageError(
            f"damaged: it claims {width} × {height} pixels; no side of a WebP picture is longer than {MAX_WEBP_SIDE:,}",
            name,
        )
    require_sensible((max(height, 1), max(width, 1)), BYTES["WEBP"], name)
    return height * width * BYTES["WEBP"]


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


def described(error: Exception, data: bytes) -> str:
    """One phrase about why a file cannot be read."""
    words = " ".join(str(error).split())[:120].rstrip(".")
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: {words.split(' pixels')[0].split('(')[-1]} pixels; more than {MAX_PIXELS:,} are refused"
    if isinstance(error, MemoryError):
        return "too large: not enough memory to decode it"
    if isinstance(error, UnidentifiedImageError):
        if len(data) < 4096 and data.lower().endswith(tuple(ending.encode() for ending in ENDINGS)):
            return "not an image: these bytes look like a path. Pass it as text: os.fsdecode(path)"
        start = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:16]
        for first_bytes, (at, what) in OTHERS.items():
            if start[at:].startswith(first_bytes):
                return f"not an image: {what}"
        if data.startswith((b"II*\0", b"MM\0*")):
            return (
                "damaged, or a kind of TIFF that cannot be read here, such as one of more than 4 channels or of 64-bit "
                "numbers. Save it as grey or RGB of 8 or 16 bits"
            )
        known = (b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"\xff\xd8\xff")
        return "damaged: its header cannot be read" if data.startswith(known) else "not an image"
    if "truncated" in words.lower() or "end of" in words.lower() or isinstance(error, EOFError):
        return f"truncated: {words}" if not words.lower().startswith("image file is") else "truncated"
    return f"damaged: {words or type(error).__name__}"
