"""One picture has the same pixels wherever it is read: as a path, bytes, Pillow image or array, in every room."""

import io
import warnings
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageCms

from cnnlab import images, models, pipelines, serving
from cnnlab.plots.style import thumbnail

HEIGHT, WIDTH = 48, 64


def encoded(image, kind, **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def wide_profile():
    """A profile with primaries far from sRGB's: red and green change places."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = data.index(b"rXYZ"), data.index(b"gXYZ")  # their entries in the table of tags
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data)


def the_pictures():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rgb = np.stack([x * 4, y * 5, np.where((x < 20) & (y < 15), 200, 30)], axis=-1).astype(np.uint8)
    grey = rgb[..., 0]
    alpha = np.where(y < 20, 0, np.where(x < 30, 128, 255)).astype(np.uint8)
    rgba = np.dstack([rgb, alpha])
    icon = np.dstack([np.zeros_like(rgb), alpha])
    palette = Image.fromarray(rgb).quantize(16)
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = (y * 60 + x * 17).astype(np.uint16)
    icc = {"icc_profile": wide_profile()}
    return {
        "rgb.png": encoded(rgb, "PNG"),
        "rgb.jpg": encoded(rgb, "JPEG", quality=90),
        "progressive.jpg": encoded(rgb, "JPEG", progressive=True),
        "large.jpg": encoded(np.kron(rgb, np.ones((9, 9, 1), np.uint8)), "JPEG"),
        "grey.jpg": encoded(grey, "JPEG"),
        "grey.png": encoded(grey, "PNG"),
        "grey-alpha.png": encoded(Image.fromarray(np.dstack([grey, alpha])), "PNG"),
        "alpha.png": encoded(rgba, "PNG"),
        "black-icon.png": encoded(icon, "PNG"),
        "alpha.webp": encoded(rgba, "WEBP", lossless=True),
        "palette.png": encoded(palette, "PNG"),
        "palette-transparent.png": encoded(palette, "PNG", transparency=2),
        "one-bit.png": encoded(Image.fromarray(grey).convert("1"), "PNG"),
        "frames.gif": encoded(palette, "GIF", save_all=True, append_images=[palette.rotate(90)]),
        "ink.jpg": encoded(Image.fromarray(rgb).convert("CMYK"), "JPEG"),
        "ink.tif": encoded(Image.fromarray(rgb).convert("CMYK"), "TIFF"),
        "turned.jpg": encoded(rgb, "JPEG", exif=turned),
        "turned.png": encoded(rgb, "PNG", exif=turned),
        "turned.tif": encoded(rgb, "TIFF", exif=turned),
        "profile.png": encoded(rgb, "PNG", **icc),
        "profile.jpg": encoded(rgb, "JPEG", quality=95, **icc),
        "twelve-bits.png": encoded(deep, "PNG"),
        "twelve-bits.tif": encoded(deep, "TIFF"),
        "sixteen-bit-colour.png": cv2.imencode(".png", rgb.astype(np.uint16) * 257 + 3)[1].tobytes(),
        "hounsfield.tif": encoded(deep.astype(np.int32) - 1024, "TIFF"),
        "float.tif": encoded(deep.astype(np.float32) / 4096, "TIFF"),
        "map.ppm": encoded(rgb, "PPM"),
        "new.avif": encoded(rgb, "AVIF"),
        "waves.jp2": encoded(rgb, "JPEG2000"),
        "plain.bmp": encoded(rgb, "BMP"),
    }


PICTURES = the_pictures()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name, data in PICTURES.items():
        (folder / name).write_bytes(data)
    return folder


NEEDS_LEVELS = "hounsfield.tif"  # its numbers have no range of their own, so a network gets none without being told


@pytest.mark.parametrize("levels", [None, (0, 4095)])
@pytest.mark.parametrize("name", PICTURES)
def test_path_bytes_pillow_image_and_array_are_one_picture(folder, name, levels):
    path = folder / name
    expected = images.read(path, levels=levels)
    assert expected.shape in ((HEIGHT, WIDTH, 3), (WIDTH, HEIGHT, 3), (9 * HEIGHT, 9 * WIDTH, 3))
    preparation = images.Preparation((24, 32), levels=levels)
    if name == NEEDS_LEVELS and levels is None:
        for source in (path, PICTURES[name]):
            with pytest.raises(images.UnreadableImageError, match=r"from -1024 to .* nothing says which"):
                images.prepare(source, preparation)
        return
    prepared = images.prepare(path, preparation)
    for source in (str(path), PICTURES[name], memoryview(PICTURES[name])):
        np.testing.assert_array_equal(images.read(source, levels=levels), expected)
        np.testing.assert_array_equal(images.prepare(source, preparation), prepared)
    with path.open("rb") as file:
        np.testing.assert_array_equal(images.read(file, levels=levels), expected)
    for read in (lambda image: images.read(image, levels=levels), lambda image: images.prepare(image, preparation)):
        with Image.open(path) as image:
            np.testing.assert_array_equal(read(image), expected if read(image).shape == expected.shape else prepared)
    if expected.dtype == np.uint8 and name != "large.jpg":  # which is decoded at reduced size
        np.testing.assert_array_equal(images.prepare(expected, preparation), prepared)
        np.testing.assert_array_equal(images.resize(expected, (24, 32)), prepared)
    with Image.open(path) as loaded:
        loaded.load()
        close = {"sixteen-bit-colour.png": 1, "large.jpg": 2}.get(name, 0)  # what Pillow keeps of them
        if levels is None or name != "sixteen-bit-colour.png":
            assert np.abs(images.prepare(loaded, preparation).astype(int) - prepared).max() <= close


def test_load_plots_and_check_show_the_same(folder):
    for channels, levels in ((3, None), (3, (0, 4095)), (1, None)):
        paths = [str(folder / name) for name in PICTURES if levels or name != NEEDS_LEVELS]
        table = pd.DataFrame({"path": paths, "label": pd.Categorical(["a", "b"] * len(paths))[: len(paths)]})
        preparation = images.Preparation((24, 32), channels=channels, levels=levels)
        expected = np.stack([images.prepare(path, preparation) for path in paths])
        if channels == 3:
            dataset = pipelines.load(table, image_size=(24, 32), levels=levels, batch_size=len(paths))
            np.testing.assert_array_equal(next(iter(dataset))[0].numpy(), expected)
        else:
            colours = np.stack([images.prepare(path, images.Preparation((24, 32))) for path in paths])
            luma = [np.asarray(Image.fromarray(image).convert("L"))[..., None] for image in colours]
            np.testing.assert_array_equal(expected, np.stack(luma))
    for path in (str(folder / name) for name in PICTURES):
        whole = images.read(path)
        if max(whole.shape) <= 64:
            np.testing.assert_array_equal(thumbnail(path, 64), np.clip(np.rint(whole), 0, 255).astype(np.uint8))


def test_the_modes_look_as_they_should():
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rgb = images.read(PICTURES["rgb.png"])
    icon = images.read(PICTURES["black-icon.png"])
    assert (
        (icon[:20] == 255).all()
        and (icon[20:, 30:] == 0).all()
        and (np.abs(icon[20:, :30].astype(int) - 127) <= 1).all()
    )
    np.testing.assert_array_equal(images.read(PICTURES["turned.png"]), np.rot90(rgb, -1))
    np.testing.assert_array_equal(images.read(PICTURES["turned.tif"]), np.rot90(rgb, -1))
    deep = y * 60 + x * 17
    for name in ("twelve-bits.png", "twelve-bits.tif"):
        np.testing.assert_allclose(images.read(PICTURES[name])[..., 0], deep / 257, rtol=1e-5)
        scaled = images.read(PICTURES[name], levels=(0, 4095))
        np.testing.assert_array_equal(scaled[..., 0], np.clip(np.rint(deep * (255 / 4095)), 0, 255))
    scaled = images.read(PICTURES["hounsfield.tif"], levels=(-1024, 3071))
    np.testing.assert_array_equal(scaled[..., 1], np.clip(np.rint(deep * (255 / 4095)), 0, 255))
    for name in ("ink.jpg", "ink.tif", "new.avif", "waves.jp2"):
        assert np.abs(images.read(PICTURES[name]).astype(int) - rgb).mean() < 12, name


def test_colour_profiles_become_srgb():
    rgb = images.read(PICTURES["rgb.png"])
    with Image.open(io.BytesIO(PICTURES["profile.png"])) as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        expected = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"))
    np.testing.assert_array_equal(images.read(PICTURES["profile.png"]), np.asarray(expected))
    assert np.abs(np.asarray(expected).astype(int) - rgb).max() > 50
    assert np.abs(images.read(PICTURES["profile.jpg"]).astype(int) - np.asarray(expected)).mean() < 8
    usual = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (usual, b"not a profile", usual[:100]):
        np.testing.assert_array_equal(images.read(encoded(rgb, "PNG", icc_profile=profile)), rgb)


def test_an_export_and_its_predictor_prepare_the_same(folder, tmp_path):
    """A network that only averages its pixels tells, in LiteRT, which ones it was given."""
    import keras

    inputs = keras.Input((24, 32, 3))
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(mean))
    model = models.with_classes(model, ["a", "b"], levels=(0, 4095))
    paths = [str(folder / name) for name in PICTURES]
    table = pd.DataFrame({"path": paths, "label": pd.Categorical(["a", "b"] * (len(paths) // 2))})
    preparation = models.preparation(model)
    expected = np.stack([images.prepare(path, preparation) for path in paths])
    loaded = pipelines.load(table, like=model, batch_size=len(paths))
    np.testing.assert_array_equal(next(iter(loaded))[0].numpy(), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few images, and a network that was never trained
        serving.export(model, tmp_path / "export", formats=("litert",), check=table)
    predictor = serving.Predictor(tmp_path / "export", temperature=1)
    answers = model.predict(expected.astype(np.float32), verbose=0)
    for path, picture, answer in zip(paths, expected, answers, strict=True):
        np.testing.assert_array_equal(predictor.prepare(path), picture)
        np.testing.assert_array_equal(predictor.prepare(Path(path).read_bytes()), picture)
        with Image.open(path) as image:
            np.testing.assert_array_equal(predictor.prepare(image), picture)
        np.testing.assert_allclose(list(predictor(path).probabilities.values()), answer, atol=1e-4)
