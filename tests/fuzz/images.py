"""Mutated images through audit, decoder, predictor, plots, `load`: python tests/fuzz/images.py --count 20000 --seed 0.

Prints one line: files, how many are unreadable, the slowest in seconds, the process's largest memory in MB, and how
often an exception came through or audit and decoder disagreed. `images_of` and `mutated` also serve quick tests.
"""

import argparse
import io
import json
import logging
import math
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageCms

KINDS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
EXPORT = Path(__file__).resolve().parents[1] / "exports_0_1_0" / "colour"
CONTENT = ("blank", "tiny", "same picture")  # how problems begin that a readable file may have


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def images_of(kind, seed=0):
    """Whole files of a kind, of every mode that it has."""
    rng = np.random.default_rng(seed)
    rgb = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((56, 40), Image.Resampling.BICUBIC)
    rgba = rgb.copy()
    rgba.putalpha(rgb.convert("L"))
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(1, 9))
    exif[0x010E] = "a description"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    deep = Image.fromarray((np.asarray(rgb.convert("L")).astype(np.uint16)) * 16)
    real = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.float32) / 7 - 9)
    more = {"exif": exif, "icc_profile": profile}
    choices = {
        "JPEG": [(rgb, more), (rgb, {"progressive": True}), (rgb.convert("L"), {}), (rgb.convert("CMYK"), {})],
        "MPO": [(rgb, {"save_all": True, "append_images": [rgb]})],
        "PNG": [(rgb, more), (rgba, {}), (rgb.convert("P"), {"transparency": 3}), (deep, {}), (rgb.convert("1"), {})],
        "GIF": [(rgb, {}), (rgb, {"save_all": True, "append_images": [rgba.convert("RGB").rotate(90)]})],
        "BMP": [(rgb, {}), (rgb.convert("P"), {}), (rgb.convert("1"), {})],
        "WEBP": [(rgb, more), (rgba, {"lossless": True}), (rgba, {"save_all": True, "append_images": [rgb]})],
        "TIFF": [(rgb, more), (rgb, {"compression": "tiff_lzw"}), (deep, {}), (real, {"compression": "tiff_deflate"}),
                 (rgb.convert("CMYK"), {"compression": "jpeg"}), (rgb.convert("1"), {"compression": "group4"})],
        "PPM": [(rgb, {}), (rgb.convert("L"), {}), (Image.fromarray(np.asarray(deep).astype(np.int32)), {})],
        "AVIF": [(rgb, {"exif": exif, "speed": 10}), (rgba, {"speed": 10})],
        "JPEG2000": [(rgb, {}), (rgba, {}), (deep, {})],
    }  # fmt: skip
    return [encoded(image, kind, **options) for image, options in choices[kind]]


def mutated(data, rng):
    """A file with a few changes: noise, single bits, pieces lost or doubled, extreme numbers, the end cut off."""
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        end = len(data) if rng.random() < 0.5 else min(120, len(data))  # headers matter most
        at, size = int(rng.integers(end)), int(rng.integers(1, 1 + min(24, len(data))))
        kind = rng.integers(7)
        if kind == 0:
            data[at : at + size] = rng.bytes(len(data[at : at + size]))
        elif kind == 1 and len(data) > size + 8:
            del data[at : at + size]
        elif kind == 2:
            data[at:at] = data[at : at + size]
        elif kind == 3:
            extreme = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\x01\0\0\0"])
            data[at : at + 4] = bytes(extreme)[: len(data[at : at + 4])]
        elif kind == 4 and len(data) > 60:
            del data[int(rng.integers(30, len(data))) :]
        else:
            data[at] ^= 1 << int(rng.integers(8))
    return bytes(data)


def write(folder, count, seed, until=math.inf):
    """`count` mutated files of all kinds, one after the other, as long as the time lasts."""
    rng = np.random.default_rng(seed)
    whole = {kind: [data for start in range(4) for data in images_of(kind, start)] for kind in KINDS}
    for number in range(count):
        if time.time() > until:
            return
        kind = KINDS[number % len(KINDS)]
        path = folder / f"{number:05}.{kind.lower()}"
        path.write_bytes(mutated(whole[kind][int(rng.integers(len(whole[kind])))], rng))
        yield str(path)


STATUS = Path("/proc/self/status")


def memory(which):
    """Memory of this process in MB: "VmRSS", what it has now, or "VmHWM", the most that it had; 0 without /proc."""
    if not STATUS.exists():
        return 0
    with STATUS.open() as status:
        return int(next(line for line in status if line.startswith(which)).split()[1]) // 1024


class Taken:
    """For `with`: the most memory that the block takes beyond what the process had before, in `megabytes`."""

    def __enter__(self):
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            self.before = memory("VmRSS")
        except OSError:  # not allowed here: what stays below an earlier peak goes unseen
            self.before = memory("VmHWM")
        return self

    def __exit__(self, *_):
        self.megabytes = max(0, memory("VmHWM") - self.before)


def run(paths, *, load=True):
    """What the parts of the package say of each file; a row for each."""
    from cnnlab import audit, images, serving
    from cnnlab.plots.style import thumbnail

    predictor = serving.Predictor(EXPORT, format="litert")
    rows = []
    labels = pd.Categorical([str(number % 2) for number in range(len(paths))])
    table = pd.DataFrame({"path": paths, "label": labels})
    scanned = audit.scan(table.drop(columns="label"))
    if "levels" in scanned:
        table["levels"] = scanned["levels"].to_numpy()
    for path, problem in zip(paths, scanned["problem"], strict=True):
        row = {
            "path": path,
            "audit": bool(problem) and not problem.startswith(CONTENT),
            "problem": problem,
            "error": "",
            "unscaled": False,
        }
        began = time.perf_counter()
        try:
            image = images.read(path)
            row["decoder"] = False
            assert image.ndim == 3 and image.shape[2] == 3, image.shape
        except images.UnreadableImageError as error:
            row["decoder"] = True
            row["same words"] = error.problem == problem
        except Exception as error:
            row.update(decoder=True, error=f"read: {type(error).__name__}: {error}")
        try:
            answer = predictor(path)
            row["predictor"] = False
            assert answer.label in predictor.classes, answer
            assert 0 <= answer.confidence <= 1, answer
        except images.UnreadableImageError as error:
            # Floats beyond 0-1 can be read, and are used by the levels of their table; a network without any refuses.
            row["unscaled"] = "levels" in error.problem
            row["predictor"] = True
        except Exception as error:
            row.update(predictor=True, error=f"{row['error']} predictor: {type(error).__name__}: {error}")
        row["seconds"] = time.perf_counter() - began
        try:
            assert thumbnail(path, 64).shape[2] == 3
        except Exception as error:
            row["error"] += f" thumbnail: {type(error).__name__}: {error}"
        rows.append(row)
    rows = pd.DataFrame(rows)
    with warnings.catch_warnings(action="ignore"):
        problems = predictor.table(table)["problem"]  # several at once
    rows["table"] = (problems != "").to_numpy()
    rows.loc[rows["unscaled"], ["predictor", "table"]] ^= True  # refused by both, for another reason
    if load:
        from cnnlab import pipelines

        dataset = pipelines.load(table, image_size=(16, 16), cache=False)
        for _ in dataset:
            pass
        rows["load"] = rows["path"].isin(pipelines.broken(dataset)["path"])
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, help="20,000, or as many as there is time for")
    parser.add_argument("--minutes", type=float, help="stop after this time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-load", action="store_true")
    options = parser.parse_args()
    logging.disable()
    parts = []
    until = math.inf if options.minutes is None else time.time() + 60 * options.minutes
    count = options.count or (20_000 if options.minutes is None else 10**9)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for path in write(Path(folder), count, options.seed, until):
            paths.append(path)
            if len(paths) == 500:
                parts.append(run(paths, load=not options.without_load))
                for old in paths:
                    Path(old).unlink()
                paths = []
        if paths:
            parts.append(run(paths, load=not options.without_load))
    rows = pd.concat(parts, ignore_index=True)
    others = [name for name in ("audit", "predictor", "table", "load") if name in rows]
    differ = rows[others].ne(rows["decoder"], axis=0).any(axis=1)
    wrong = rows[differ | (rows["error"] != "") | (rows["seconds"] > 5)]
    for row in wrong.head(20).to_dict("records"):
        print(row)
    print(
        json.dumps(
            {
                "files": len(rows),
                "unreadable": int(rows["decoder"].sum()),
                "slowest": round(float(rows["seconds"].max()), 2),
                "memory": memory("VmHWM"),
                "exceptions": int((rows["error"] != "").sum()),
                "disagreements": int(differ.sum()),
            }
        )
    )
    sys.exit(bool(len(wrong) or memory("VmHWM") > 1536))


if __name__ == "__main__":
    main()
