"""Notebook 12 at full size on folders as people have them; each ends with a report, or with one clear sentence.

Usage: CNNLAB_REAL_DATA=folder python benchmarks/your_own_images.py [name …]
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import test_your_own_images as folders  # noqa: E402  (how awkward folders are made)

DATA = Path(os.environ.get("CNNLAB_REAL_DATA", "")).resolve()
NOTEBOOK = ROOT / "notebooks" / "12_your_own_images.ipynb"
SCRATCH = ('network=""',)


def signs(target, sizes, **options):
    return folders.signs(DATA, target, sizes, **options)


FOLDERS = {
    "trash": (lambda _: DATA / "trash", ()),
    "clothing": (lambda _: DATA / "clothing", ()),
    "clothing, from scratch": (lambda _: DATA / "clothing", SCRATCH),
    "sign_digits": (lambda _: DATA / "sign_digits", ()),
    "grey": (lambda target: signs(target, [60] * 10, mode="L"), ()),
    "two classes": (lambda target: signs(target, [100] * 2), ()),
    "40 images": (lambda target: signs(target, [10] * 4), ()),
    "30 classes, 1:100": (
        lambda target: signs(target, np.round(np.geomspace(200, 2, 30)).astype(int), turns=(0, 90, 180)),
        (),
    ),
    "one class": (lambda target: signs(target, [40]), ()),
    "an empty folder": (lambda target: target.mkdir() or target, ()),
}


def run(name):
    make, options = FOLDERS[name]
    with tempfile.TemporaryDirectory() as folder:
        data = make(Path(folder) / "data")
        command = [sys.executable, "-m", "cnnlab", "report", NOTEBOOK, "--data", data, "--folder", f"{folder}/run"]
        command += [part for option in options for part in ("--set", option)]
        began = time.perf_counter()
        with Path(folder, "log.txt").open("w+") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
            log.seek(0)
            lines = [line for line in log.read().splitlines() if line.strip()]
        minutes = (time.perf_counter() - began) / 60
        page = Path(folder) / "run" / "report.html"
        said = lines[-1] if status or not page.exists() else found_in(page.read_text(encoding="utf-8"))
    print(f"| {name} | {minutes:.1f} | {usage.ru_maxrss / 2**20:.2f} | {said} |", flush=True)


def found_in(page):
    """What the summary of a report says."""
    text = re.sub(r"<[^>]+>", "", page)
    score = re.search(r"Test accuracy [\d.]+ \([\d.]+ to [\d.]+, n = \d+\)", text).group()
    return f"{re.search(r'Network: ([^,]+)', text).group(1)}: {score}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(FOLDERS)}; all of them where none is named")
    print("| folder | minutes | largest memory, GiB | outcome |\n|---|---|---|---|")
    for name in parser.parse_args().names or FOLDERS:
        run(name)


if __name__ == "__main__":
    main()
