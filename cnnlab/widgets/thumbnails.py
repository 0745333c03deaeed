"""Small pictures of files for the browser, made when they are asked for; the latest ones stay in memory."""

import functools
import os
from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

from cnnlab._common import in_threads
from cnnlab.images.levels import Levels
from cnnlab.plots.style import small

KEPT = 512  # pictures in memory: about 10 MB of 240 pixels each
TINY = 64  # pixels: up to here every one counts, so PNG


class Thumbnail(NamedTuple):
    """The bytes of a JPEG or PNG file, and why the image cannot be shown; "" where it can, else the bytes are grey."""

    data: bytes
    problem: str = ""


def thumbnails(
    paths: Iterable[str | os.PathLike[str]], size: int = 240, *, levels: Levels | None = None
) -> list[Thumbnail]:
    """Makes a picture at most `size` pixels wide and high of each file, on all cores; never fails.

    >>> thumbnails(["gone.png"])[0].problem
    'There is no such file.'
    """
    return in_threads(lambda path: _kept(os.fspath(path), size, levels, _stamp(path)), paths)


@functools.lru_cache(KEPT)
def _kept(path: str, size: int, levels: Levels | None, stamp: object) -> Thumbnail:
    """`stamp` tells a file from what stood there before."""
    try:
        image, problem = small(path, size, levels=levels), ""
    except FileNotFoundError:
        image, problem = GREY, "There is no such file."
    except (OSError, ValueError) as error:
        image, problem = GREY, str(error)
    kind, options = (".png", []) if max(image.shape) <= TINY else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 88])
    return Thumbnail(cv2.imencode(kind, image[..., ::-1], options)[1].tobytes(), problem)


def _stamp(path: str | os.PathLike[str]) -> object:
    try:
        status = os.stat(path)  # noqa: PTH116
        return status.st_mtime_ns, status.st_size
    except (OSError, ValueError):
        return None


GREY = np.full((1, 1, 3), 200, np.uint8)
