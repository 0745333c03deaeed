"""Any file becomes the same RGB, and comes to size in one way everywhere."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from cnnlab import images, pipelines
from cnnlab.images import decoding, jpeg, limits, preparing, sizing

HEIGHT, WIDTH = 48, 64


@pytest.fixture(scope="module")
def picture():
    """Smooth, so that lossy files stay close, and alike in no mirror or turn."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x * 4, y * 5, np.where((x < 20) & (y < 15), 200, 30)], axis=-1).astype(np.uint8)


def encoded(image, kind, **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def close(one, two, tolerance):
    assert one.shape == two.shape
    assert np.abs(one.astype(float) - two).mean() <= tolerance


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 3),
        ("JPEG", {"quality": 95, "subsampling": 0}, 2),
        ("JPEG", {"quality": 95, "progressive": True}, 3),
        ("GIF", {}, 12),
        ("JPEG2000", {}, 0),
    ],
)
def test_kinds_of_files(picture, kind, options, tolerance, tmp_path):
    data = encoded(picture, kind, **options)
    close(images.read(data), picture, tolerance)
    path = tmp_path / "image.bin"  # the name does not matter
    path.write_bytes(data)
    for source in (path, str(path)):
        np.testing.assert_array_equal(images.read(source), images.read(data))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_orientation_of_cameras_is_applied(picture, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    data = encoded(picture, kind, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    close(images.read(data), expected, 1)
    assert images.read(data).shape[:2] == ((HEIGHT, WIDTH) if orientation < 5 else (WIDTH, HEIGHT))


def test_grey_palette_and_bits_become_rgb(picture):
    grey = Image.fromarray(picture[..., 0])
    for mode, kind in (("L", "PNG"), ("L", "JPEG"), ("1", "PNG"), ("P", "PNG"), ("P", "BMP")):
        source = grey.convert(mode)
        expected = np.asarray(source.convert("RGB"))
        close(images.read(encoded(source, kind)), expected, 2 if kind == "JPEG" else 0)


def test_cmyk_photographs_keep_their_colours(picture):
    cmyk = Image.fromarray(picture).convert("CMYK")
    close(images.read(encoded(cmyk, "JPEG", quality=98, subsampling=0)), picture, 8)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_turn_white(picture, mode):
    image = Image.fromarray(picture)
    if mode == "P":
        image = image.quantize(16)
        image.info["transparency"] = index = int(np.asarray(image)[0, 0])
        hidden = np.asarray(image) == index
        data = encoded(image, "PNG", transparency=index)
    else:
        alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
        alpha[:10] = 0
        hidden = alpha == 0
        image = image.convert(mode)
        image.putalpha(Image.fromarray(alpha))
        data = encoded(image, "PNG")
    found = images.read(data)
    assert (found[hidden] == 255).all()
    np.testing.assert_array_equal(found[~hidden], np.asarray(image.convert("RGBA"))[..., :3][~hidden])


def test_half_transparent_is_blended_with_white():
    image = Image.new("RGBA", (4, 4), (100, 0, 200, 128))
    np.testing.assert_allclose(images.read(encoded(image, "PNG"))[0, 0], [177, 127, 227], atol=1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_lose_nothing_until_they_are_prepared(kind):
    deep = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    found = images.read(encoded(Image.fromarray(deep), kind))
    np.testing.assert_allclose(found, np.repeat(deep[..., None] / 257.0, 3, axis=-1), rtol=1e-6)
    assert found.dtype == np.float32
    prepared = images.prepare(encoded(Image.fromarray(deep), kind), images.Preparation(deep.shape))
    np.testing.assert_array_equal(prepared, np.repeat(np.rint(deep / 257.0).astype(np.uint8)[..., None], 3, axis=-1))


def test_sixteen_bit_colours_become_eight(picture):
    deep = cv2.imencode(".png", picture[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    close(images.read(deep), picture, 0.5)


@pytest.mark.parametrize("kind", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4], ids=["grey", "colour", "transparent"])
def test_twelve_bits_in_files_of_sixteen_keep_them_all(kind, channels, tmp_path):
    deep = np.linspace(0, 4095, HEIGHT * WIDTH * 3).reshape(HEIGHT, WIDTH, 3).astype(np.uint16)
    stored = {1: deep[..., 0], 3: deep, 4: np.dstack([deep, np.full((HEIGHT, WIDTH), 65535, np.uint16)])}[channels]
    path = tmp_path / f"deep{kind}"
    cv2.imwrite(str(path), stored)
    expected = np.rint((stored[..., None] if channels == 1 else deep[..., ::-1]) * (255 / 4095))
    for source in (path, path.read_bytes()):
        close(images.read(source, levels=(0, 4095)), np.broadcast_to(expected, (HEIGHT, WIDTH, 3)), 0.5)
    with Image.open(path) as opened:
        close(images.read(opened, levels=(0, 4095)), np.broadcast_to(expected, (HEIGHT, WIDTH, 3)), 0.5)
    np.testing.assert_allclose(images.read(path), np.broadcast_to(expected * 4095 / 65535, deep.shape), atol=0.04)


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_float_images_are_taken_as_they_are_meant(top):
    levels = np.linspace(0, top, 256, dtype=np.float32).reshape(16, 16)
    found = images.read(encoded(Image.fromarray(levels), "TIFF"))
    np.testing.assert_array_equal(found[..., 0].ravel(), np.arange(256))


def test_of_moving_pictures_the_first_frame(picture):
    frames = [Image.fromarray(picture), Image.new("RGB", (WIDTH, HEIGHT), "white")]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        close(images.read(data), picture, 12)


# Broken


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_files_that_are_cut_short_are_refused(kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    data = encoded(noise, kind)
    with pytest.raises(images.UnreadableImageError, match=r"cannot be read: (damaged|truncated|not an image)"):
        images.read(data[: int(len(data) * share)])


def test_pointers_of_git_lfs_are_named():
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    with pytest.raises(ValueError, match=r"a pointer of Git LFS\. Fetch the file itself: git lfs pull"):
        images.read(pointer)


def test_what_is_no_image_is_refused_in_words(tmp_path):
    with pytest.raises(ValueError, match="cannot be read: empty: 0 bytes"):
        images.read(b"")
    path = tmp_path / "notes.jpg"
    path.write_text("not an image")
    with pytest.raises(ValueError, match=r"notes.jpg cannot be read: not an image"):
        images.read(path)
    with pytest.raises(ValueError, match=r"cannot be read: (damaged|truncated|not an image)"):
        images.read(jpeg.START + bytes(100))
    with pytest.raises(FileNotFoundError):
        images.read(tmp_path / "missing.png")
    with pytest.raises(TypeError, match=r"from a path, from bytes, .* Received: list"):
        images.read([[3]])


@given(st.integers(0, 10**6), st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"]))
def test_damaged_bytes_give_an_image_or_a_refusal(seed, kind):
    rng = np.random.default_rng(seed)
    data = bytearray(encoded(np.full((20, 20, 3), 90, np.uint8), kind))
    for place in rng.integers(0, len(data), 5):
        data[place] = rng.integers(0, 256)
    try:
        image = images.read(bytes(data))
    except images.UnreadableImageError:
        return
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] == 3


@pytest.mark.parametrize(("options", "kind"), [({}, 4), ({"compression": "tiff_lzw"}, 3)], ids=["raw", "lzw"])
def test_a_tiff_without_its_last_rows_is_refused(picture, options, kind):
    data = bytearray(encoded(picture, "TIFF", **options))
    rows = data.index(struct.pack("<HHI", 257, kind, 1)) + 8  # the tag "ImageLength", one number of 16 or 32 bits
    assert struct.unpack("<H", data[rows : rows + 2]) == (HEIGHT,)
    data[rows : rows + 2] = struct.pack("<H", 3 * HEIGHT)
    with pytest.raises(images.UnreadableImageError, match=r"cannot be read: (damaged|truncated)"):
        images.read(bytes(data))


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_tiff_is_turned_and_whole(picture, turn):
    image = Image.fromarray(picture)
    exif = Image.Exif()
    exif[0x0112] = turn
    np.testing.assert_array_equal(
        images.read(encoded(image, "TIFF", exif=exif)), images.read(encoded(image, "PNG", exif=exif))
    )


def png_header(width, height):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def jpeg_header(width, height):
    data = bytearray(encoded(np.zeros((8, 8, 3), np.uint8), "JPEG"))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def test_a_small_file_that_would_unfold_to_gigabytes_is_refused():
    for data in (png_header(20_000, 20_000), jpeg_header(60_000, 60_000), png_header(100_000, 100_000)):
        assert len(data) < 2000
        with pytest.raises(ValueError, match=r"too large: .* pixels; more than [\d,]+ .*are refused"):
            images.read(data)


def test_the_limit_itself_is_read(monkeypatch, picture):
    monkeypatch.setattr(limits, "MAX_PIXELS", HEIGHT * WIDTH)
    for kind in ("PNG", "JPEG"):
        assert images.read(encoded(picture, kind)).shape == (HEIGHT, WIDTH, 3)
    monkeypatch.setattr(limits, "MAX_PIXELS", HEIGHT * WIDTH - 1)
    for kind in ("PNG", "JPEG"):
        with pytest.raises(ValueError, match="64 × 48"):
            images.read(encoded(picture, kind))


def test_headers_tell_the_size(picture):
    for kind in ("JPEG", "PNG", "WEBP"):
        assert decoding.declared_size(encoded(picture, kind)) == (HEIGHT, WIDTH)
    assert decoding.declared_size(b"nothing") is None
    assert jpeg.header(jpeg.START + b"\xff\xff\xe0\x00\x02" + bytes(20)) is None
    restart = b"\xff\xd8" + b"\xff\xd0" + b"\xff\xff" + encoded(picture, "JPEG")[2:]  # markers without length, filling
    assert jpeg.header(restart)[:2] == (HEIGHT, WIDTH)


# To size


@pytest.mark.parametrize("mode", ["fit", "pad", "stretch"])
@pytest.mark.parametrize("size", [(24, 24), (10, 40), (90, 33), (48, 64), (1, 1)])
def test_sizes_are_exact_whatever_the_mode(picture, size, mode):
    for image in (picture, picture.transpose(1, 0, 2), picture[:1], picture[:, :1]):
        found = images.resize(np.ascontiguousarray(image), size, mode)
        assert found.shape == (*size, 3) and found.dtype == np.uint8


def test_the_same_size_is_the_same_image(picture):
    for mode in ("fit", "pad", "stretch"):
        np.testing.assert_array_equal(images.resize(picture, (HEIGHT, WIDTH), mode), picture)


def test_fit_cuts_the_middle_pad_shows_all_stretch_distorts(picture):
    # Half the size is the average of blocks of four pixels.
    half = picture.reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean(axis=(1, 3))
    middle = images.resize(picture, (24, 24), "fit")
    close(middle, half[:, 4:28], 0.5)
    padded = images.resize(picture, (32, 32), "pad")
    close(padded[4:28], half, 0.5)
    assert (padded[:4] == 0).all() and (padded[28:] == 0).all()
    stretched = images.resize(picture, (24, 64), "stretch")
    close(stretched, picture.reshape(24, 2, 64, 3).mean(axis=1), 1.5)


def test_thin_lines_do_not_flicker():
    """A grid of lines one pixel wide becomes an even grey, where plain bilinear scaling would show moiré."""
    lines = np.zeros((400, 400, 3), np.uint8)
    lines[:, ::2] = 255
    found = images.resize(lines, (90, 90))
    assert found.std() < 3 and found.mean() == pytest.approx(127.5, abs=2)


@pytest.mark.parametrize("size", [(224, 224), (160, 160), (96, 96), (64, 64)])
def test_photographs_come_close_to_an_antialiased_resize(real_data, size):
    paths = sorted((real_data / "trash").glob("*/*.jpg"))[::60]
    for path in paths:
        found = images.prepare(path, images.Preparation(size))
        image = Image.open(path)
        expected = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
        close(found, np.asarray(expected), 4)
        close(found, images.resize(images.read(path), size), 1)


def test_prepare_takes_a_path_bytes_or_an_array(picture, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture, "PNG"))
    expected = images.resize(picture, (30, 20), "pad")
    for source in (path, str(path), path.read_bytes(), picture):
        np.testing.assert_array_equal(images.prepare(source, images.Preparation((30, 20), resize="pad")), expected)
    for wrong in (picture / 255, picture[None]):
        with pytest.raises(ValueError, match="Expected"):
            images.prepare(wrong, images.Preparation((30, 20)))
    with pytest.raises(ValueError, match="Received: list"):
        images.resize([[1]], (30, 20))


# Reduced decoding


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_reduced_jpegs_are_averages_of_blocks(real_data, factor):
    data = next((real_data / "trash").glob("*/*.jpg")).read_bytes()
    full = images.read(data)
    close(images.read(data, reduce=factor), sizing.reduce_by(full, factor), 1)


@given(
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.sampled_from(["fit", "pad", "stretch"]),
    st.floats(1, 3),
)
def test_enough_pixels_remain_for_what_the_result_needs(size, image_size, mode, detail):
    factor = sizing.reduction(size, image_size, mode, detail)
    (height, width), (to_height, to_width) = size, image_size
    if factor > 1 and mode != "pad":
        assert height / factor >= to_height * detail and width / factor >= to_width * detail
    if factor > 1 and mode == "pad":  # the bars need none
        assert max((height / factor) / to_height, (width / factor) / to_width) >= detail


@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.sampled_from(["fit", "pad", "stretch"]),
)
def test_the_base_map_lays_corner_on_corner(size, image_size, mode):
    (left, top, width, height), (to_left, to_top, to_width, to_height) = sizing.windows(size, image_size, mode)
    assert left >= 0 and left + width <= size[1] and top >= 0 and top + height <= size[0]
    assert to_left >= 0 and to_left + to_width <= image_size[1]
    matrix = sizing.base_matrix(size, image_size, mode)
    for x, y, from_x, from_y in (
        (to_left, to_top, left, top),
        (to_left + to_width, to_top + to_height, left + width, top + height),
    ):
        # corners of pixels lie half a pixel before their centres
        np.testing.assert_allclose(matrix @ [x - 0.5, y - 0.5, 1], [from_x - 0.5, from_y - 0.5], atol=1e-6)


def test_floats_of_0_to_1_are_refused_also_where_resizing_has_carried_them_beyond(picture):
    with pytest.raises(ValueError, match="multiply by 255"):
        images.read(picture / np.float32(255) + np.float32(0.003))


@pytest.mark.parametrize("kind", [np.int64, np.uint16, np.int8])
def test_masks_of_0_and_1_are_refused_and_black_images_are_not(picture, kind):
    with pytest.raises(ValueError, match="values from 0 to 1: multiply by 255"):
        images.read((picture > 100).astype(kind))
    assert not images.read(np.zeros_like(picture, kind)).any()
    dark = (picture > 100).astype(np.uint8)  # of bytes, as a camera gives them
    np.testing.assert_array_equal(images.read(dark), dark)


def test_arrays_of_deep_images_are_read_by_the_levels_as_their_files_are():
    deep = np.linspace(0, 200, 96).reshape(8, 12).astype(np.uint16)  # a dark one of 12 bits
    prepared = images.Preparation((8, 12), levels=(0, 4095))
    of_file = images.prepare(encoded(Image.fromarray(deep), "PNG"), prepared)
    for array in (deep, deep[..., None], np.repeat(deep[..., None], 3, axis=2)):
        np.testing.assert_array_equal(images.prepare(array, prepared), of_file)
    assert of_file.max() == 12 and images.prepare(deep, images.Preparation((8, 12))).max() == 200


def test_the_names_of_before_still_work(picture):
    half = images.resize(picture, (24, 24), "pad")
    with pytest.warns(DeprecationWarning, match=r"`pipelines.read_image` is `images.read` now"):
        np.testing.assert_array_equal(pipelines.read_image(encoded(picture, "PNG")), picture)
    with pytest.warns(DeprecationWarning, match=r"`pipelines.prepare` is `images.prepare` now"):
        np.testing.assert_array_equal(pipelines.prepare(picture, (24, 24), "pad"), half)
    with pytest.warns(DeprecationWarning, match=r"`pipelines.resize` is `images.resize` now"):
        np.testing.assert_array_equal(pipelines.resize(picture, (24, 24), "pad"), half)


def test_files_that_somebody_opened_are_read_as_bytes_within_the_limit(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "a.png")
    with (tmp_path / "a.png").open("rb") as file:
        assert (images.read(file) == 9).all()
    with pytest.raises(images.UnreadableImageError, match=r"opened with 'rb'"):
        images.read(io.StringIO("a.png"))
    monkeypatch.setattr(preparing, "MAX_BYTES", 20)
    with (tmp_path / "a.png").open("rb") as file, pytest.raises(images.UnreadableImageError, match="of at most"):
        images.read(file)


@pytest.mark.parametrize("reduce", [0, -1, 3, 2.5, True])
def test_other_reductions_are_no_fault_of_the_file(picture, reduce):
    with pytest.raises(ValueError, match="`reduce` expects 1, 2, 4 or 8") as raised:
        images.read(picture, reduce=reduce)
    assert not isinstance(raised.value, images.UnreadableImageError)
