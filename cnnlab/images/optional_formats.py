"""HEIC photographs and DICOM images, which need packages of their own: pip install 'cnnlab[formats]'."""

import io
import warnings
from functools import cache
from typing import Any

import numpy as np

from cnnlab.images.files import UnreadableImageError, needs_extra
from cnnlab.images.levels import Levels

warnings.filterwarnings("ignore", module=r"pydicom\.")  # of odd metadata, as with Pillow
DEFLATED = b"1.2.840.10008.1.2.1.99"  # how a DICOM file says that all of it is packed
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def needs_package(data: bytes) -> str:
    """The word "HEIF" or "DICOM" where the first bytes say so, else ""."""
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS and b"avif" not in data[8:40]:
        return "HEIF"
    return "DICOM" if data[128:132] == b"DICM" else ""


def require_package(kind: str, name: str) -> None:
    """Refuses what the package for it is missing for; makes Pillow know HEIC."""
    missing = needs_extra({"HEIF": ".heic", "DICOM": ".dcm"}[kind])
    if missing:
        raise UnreadableImageError(f"not an image that can be read here: {missing}", name)
    if kind == "HEIF":
        _register_heif()


@cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)


def open_dicom(data: bytes, name: str) -> Any:
    """The data set of a DICOM file, its pixels not yet decoded."""
    import pydicom

    if DEFLATED in data:
        raise UnreadableImageError(
            "not an image that can be read here: a deflated DICOM, which may decompress to any size. Save it "
            "uncompressed",
            name,
        )
    return pydicom.dcmread(io.BytesIO(data))


def packed_frame(dataset: Any) -> bytes:
    """The first frame of a DICOM data set as it is compressed; b"" where it is not."""
    from pydicom.encaps import get_frame

    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return b""
    return get_frame(dataset.PixelData, 0, number_of_frames=int(dataset.get("NumberOfFrames") or 1))


def dicom_values(dataset: Any) -> tuple[np.ndarray, Levels | None]:
    """The first frame of a DICOM data set, and the window (low, high) that it asks to be seen in, if any.

    Colours as uint8 (height, width, 3); or what its numbers stand for, such as Hounsfield values, as float32 (height,
    width, 1), larger ones brighter.
    """
    from pydicom.pixels import apply_color_lut, pixel_array

    values = pixel_array(dataset, index=0, allow_excess_frames=False)
    kind = dataset.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)
    if values.ndim == 3:
        return (values if values.dtype == np.uint8 else values >> (8 * values.itemsize - 8)).astype(np.uint8), None
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    if not np.isfinite([slope, intercept]).all() or max(abs(slope), abs(intercept)) > 1e12:
        raise ValueError("its rescale slope or intercept is out of range")
    real = values.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    window = _window(dataset)
    if kind == "MONOCHROME1":  # the smallest number is the brightest: turned round within the bits it is stored in
        top = 2 ** int(dataset.BitsStored) - 1 if int(dataset.PixelRepresentation) == 0 else -1
        mirror = slope * top + 2 * intercept
        real = np.float32(mirror) - real
        window = None if window is None else (mirror - window[1], mirror - window[0])
    return real[..., None], window


def _window(dataset: Any) -> Levels | None:
    """Window centre and width as the smallest and the largest value shown (DICOM PS3.3, C.11.2.1.2)."""
    centre, width = dataset.get("WindowCenter"), dataset.get("WindowWidth")
    if centre is None or width is None:
        return None
    centre, width = (float(np.atleast_1d(np.asarray(value, dtype=float))[0]) for value in (centre, width))
    if not width > 1 or not np.isfinite([centre, width]).all():
        return None
    return centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
