"""A folder through `cnnlab predict` beside decoding its images alone, in one run: what the network and the CSV cost.

`small_cnn` at 96 px, exported as LiteRT. Decoding alone brings every image to the network's size, on all cores. Both
take turns. The files are photographs made from those of FOLDER, or rendered ones; each stands in the folder several
times, under several names.

Usage:
    python benchmarks/predicting.py [--data FOLDER] [--images 5000] [--rounds 3] [--sizes 400 1600 4000]
"""

import argparse
import contextlib
import io
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from cnnlab import images, models, samples, serving, tables
from cnnlab.__main__ import main as cnnlab
from cnnlab._common import in_threads

DIFFERENT = 100  # photographs


def photographs(paths, folder, width, count):
    """`count` JPEG files of `width` × ¾ `width` pixels, whose content repeats after a hundred."""
    folder.mkdir(parents=True)
    for place in range(count):
        file = folder / f"{place:05d}.jpg"
        if place < DIFFERENT:
            with Image.open(paths.iloc[place % len(paths)]) as image:
                image.convert("RGB").resize((width, width * 3 // 4)).save(file, quality=90)
        else:
            os.link(folder / f"{place % DIFFERENT:05d}.jpg", file)
    return folder


def seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def rounds(export, folder, csv, count):
    """Seconds of decoding alone and of the whole command, of each round."""
    prepared = serving.Predictor(export).preparation
    paths = tables.from_folder(folder, labelled=False)["path"].tolist()
    found = []
    for number in range(count):
        alone = seconds(lambda: in_threads(lambda path: images.prepare(path, prepared), paths))
        command = ["predict", str(export), str(folder), "--csv", f"{csv}{number}.csv"]
        with contextlib.redirect_stdout(io.StringIO()):
            found.append((alone, seconds(lambda words=command: cnnlab(words))))
    return np.array(found)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default=os.environ.get("CNNLAB_REAL_DATA"))
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[400, 1600, 4000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        source = Path(options.data) / "clothing" if options.data else samples.inspection(place / "parts", per_class=20)
        table = tables.from_folder(source)
        paths = table["path"].sample(frac=1, random_state=0)
        model = models.small_cnn(image_size=(96, 96), classes=table["label"].cat.categories)
        serving.export(model, place / "export", formats=["litert"], check=table.head(20))
        print(f"{options.images:,} images; medians of {options.rounds} rounds\n")
        print("| photographs | decoding alone, images/s | cnnlab predict, images/s | ratio (lowest, highest) |")
        print("|---|---|---|---|")
        for width in options.sizes:
            folder = photographs(paths, place / str(width), width, options.images)
            found = rounds(place / "export", folder, place / f"answers{width}", options.rounds)
            alone, whole = options.images / np.median(found, axis=0)
            ratio = found[:, 0] / found[:, 1]
            print(f"| {width} × {width * 3 // 4} | {alone:,.0f} | {whole:,.0f} | "
                  f"{np.median(ratio):.2f} ({ratio.min():.2f}, {ratio.max():.2f}) |")  # fmt: skip


if __name__ == "__main__":
    main()
