"""HEIC and DICOM, by the packages of the extra `formats`; refused by name without them."""

import io
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnlab import audit, images
from cnnlab.images import files

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
DICOM = bytes(128) + b"DICM" + bytes(200)


@pytest.fixture
def without(monkeypatch):
    monkeypatch.setattr(files, "find_spec", lambda name: None)


@pytest.mark.parametrize(("data", "ending", "package"), [(HEIC, ".HEIC", "pillow-heif"), (DICOM, ".dcm", "pydicom")])
def test_files_that_need_the_extra_are_refused_by_name(without, tmp_path, data, ending, package):
    assert f"{package}: pip install 'cnnlab[formats]'" in images.needs_extra(ending)
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(images.UnreadableImageError, match=rf"photo.jpg cannot be read: .*{package}: pip install"):
        images.read(path)
    problem = audit.scan(pd.DataFrame({"path": [str(path)]}))["problem"].iloc[0]
    assert "pip install 'cnnlab[formats]'" in problem


def test_other_endings_need_nothing(without):
    for ending in (".jpg", ".PNG", ".avif", ".ppm", ".txt"):
        assert images.needs_extra(ending) == ""
    assert {".heic", ".dcm", ".jpg"} <= set(images.ENDINGS)


def test_heic_photographs_are_read():
    pillow_heif = pytest.importorskip("pillow_heif")
    assert "PIL" in sys.modules and pillow_heif
    picture = np.kron(np.arange(48).reshape(6, 8), np.ones((16, 16)))[..., None].repeat(3, axis=2).astype(np.uint8) * 5
    pillow_heif.register_heif_opener()
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "HEIF", quality=95)
    found = images.read(file.getvalue())
    assert np.abs(found.astype(int) - picture).mean() < 4
    with pytest.raises(images.UnreadableImageError):
        images.read(HEIC)


def dicom_of(values, **tags):
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.SamplesPerPixel = 1 if values.ndim == 2 else 3
    if values.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "MONOCHROME2" if values.ndim == 2 else "RGB"
    dataset.BitsAllocated = dataset.BitsStored = 8 * values.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.PixelData = values.tobytes()
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def test_dicom_numbers_become_hounsfield_values_and_the_window_is_kept():
    stored = np.linspace(0, 4000, 40 * 50).reshape(40, 50).astype(np.uint16)
    data = dicom_of(stored, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    hounsfield = stored.astype(float) - 1024
    expected = np.clip(np.rint((hounsfield - -160) / (239 - -160) * 255), 0, 255)
    found = images.prepare(data, images.Preparation((40, 50)))
    np.testing.assert_allclose(found[..., 0], expected, atol=1)
    by_levels = images.read(data, levels=(-1000, 1000))
    np.testing.assert_allclose(by_levels[..., 0], np.clip((hounsfield + 1000) / 2000 * 255, 0, 255), atol=0.51)


def test_what_is_stored_bright_to_dark_is_turned_round():
    stored = np.linspace(0, 4095, 40 * 50).reshape(40, 50).astype(np.uint16)
    data = dicom_of(stored, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)
    np.testing.assert_allclose(images.read(data, levels=(0, 4095))[..., 0], 255 - stored / 4095 * 255, atol=0.51)


def test_dicom_in_colour_and_one_window_for_a_set(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    np.testing.assert_array_equal(images.read(dicom_of(colours)), colours)
    for number, window in enumerate(((40, 400), (50, 350))):
        stored = np.random.default_rng(number).integers(0, 2000, (40, 50)).astype(np.uint16)
        data = dicom_of(stored, RescaleIntercept=-1024, RescaleSlope=1, WindowCenter=window[0], WindowWidth=window[1])
        (tmp_path / f"{number}.dcm").write_bytes(data)
    table = audit.scan(pd.DataFrame({"path": sorted(map(str, tmp_path.iterdir()))}))
    assert (table["problem"] == "").all()
    assert audit.levels(table) == (-160.0, 239.0)
    for broken in (DICOM, dicom_of(colours)[:-200]):
        with pytest.raises(images.UnreadableImageError):
            images.read(broken)
