"""What audit finds and how long it takes: speed, grouping, planted copies, damage, wrong labels, mutated files.

Usage: CNNLAB_REAL_DATA=… python benchmarks/audit.py [part …]
"""

import argparse
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import scipy.stats
from PIL import Image

from cnnlab import audit, tables
from cnnlab._common import available_cores
from cnnlab.audit import copies, files
from cnnlab.audit.registration import COLOUR, FINE

DATA = Path(os.environ.get("CNNLAB_REAL_DATA", "")).resolve()
SETS = {"sign_digits": "*/*.JPG", "clothing": "*/*/*.jpg", "trash": "*/*.jpg"}


def photographs(*names):
    return [path for name in names for path in sorted((DATA / name).glob(SETS[name]))]


def table_of(paths):
    labels = pd.Categorical(["a"] * len(paths))
    return pd.DataFrame({"path": [str(path) for path in paths], "label": labels})


def heading(*columns):
    print("\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")


def row(*values):
    print("| " + " | ".join(str(value) for value in values) + " |", flush=True)


# ------------------------------------------------------------------------------------------------------- speed


def decode(path):
    with Image.open(path) as image:
        image.load()


def decode_all(paths):
    with ThreadPoolExecutor(available_cores()) as pool:
        list(pool.map(decode, paths, chunksize=16))


def five_thousand(folder, names):
    """Photographs and, until there are 5,000, different cut-outs of them, saved as a camera would."""
    rng = np.random.default_rng(0)
    paths, originals = [], photographs(*names)
    for number in range(5000):
        image = Image.open(originals[number % len(originals)]).convert("RGB")
        if number >= len(originals):
            width, height = image.size
            left, top = rng.integers(0, width // 3 + 1), rng.integers(0, height // 3 + 1)
            cut = image.crop((left, top, left + width * 2 // 3, top + height * 2 // 3))
            image = cut.resize((width, height), Image.Resampling.BICUBIC)
        paths.append(folder / f"{number:05d}.jpg")
        image.save(paths[-1], quality=90)
    return paths


def speed(rounds=3):
    heading("5,000 JPEGs of", "decode with Pillow, s", "audit.scan, s", "ratio of medians", "ratios of the rounds")
    for names in (("clothing", "trash"), ("sign_digits", "clothing", "trash")):
        with tempfile.TemporaryDirectory() as folder:
            paths = [str(path) for path in five_thousand(Path(folder), names)]
            table, seconds = table_of(paths), {"decode": [], "scan": []}
            decode_all(paths)  # into the file cache
            for _ in range(rounds):
                for name, call in (("decode", lambda p=paths: decode_all(p)), ("scan", lambda t=table: audit.scan(t))):
                    began = time.perf_counter()
                    call()
                    seconds[name].append(time.perf_counter() - began)
        decoding, scanning = (np.median(seconds[name]) for name in ("decode", "scan"))
        ratios = " ".join(f"{b / a:.2f}" for a, b in zip(seconds["decode"], seconds["scan"], strict=True))
        row(", ".join(names), f"{decoding:.2f}", f"{scanning:.2f}", f"{scanning / decoding:.2f}", ratios)


# ------------------------------------------------------------------------------------------------------ groups


def many_thumbnails(count):
    """Thumbnails of `count` pictures made from real ones, every twentieth of them a changed copy of the one before."""
    rng = np.random.default_rng(0)
    sources = [cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for path in photographs(*SETS)[::3]]
    sources = [cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA) for image in sources]
    parts = []
    for start in range(0, count, 1024):
        pixels = np.empty((min(1024, count - start), FINE, FINE, 3), np.uint8)
        for place in range(len(pixels)):
            if place % 20 == 19:
                pixels[place] = np.clip(pixels[place - 1][:, ::-1] * 1.1 + rng.normal(0, 2, (FINE, FINE, 1)), 0, 255)
                continue
            picture = np.zeros((64, 64, 3))
            for share in (0.6, 0.4):  # two cut-outs, one seen through the other
                source = sources[rng.integers(len(sources))]
                left, top = rng.integers(0, 64, 2)
                picture += share * source[top : top + 64, left : left + 64]
            pixels[place] = cv2.resize(picture.astype(np.uint8), (FINE, FINE), interpolation=cv2.INTER_AREA)
        grey = np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pixels])
        colour = [cv2.resize(picture, (COLOUR, COLOUR), interpolation=cv2.INTER_AREA) for picture in pixels]
        parts.append(copies.Thumbnails(grey, np.stack(colour), np.full(len(pixels), 128)))
    return copies.Thumbnails(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def group_once(count):
    thumbs = many_thumbnails(count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    began = time.perf_counter()
    first, second = copies.near_copies(thumbs)
    number = copies.groups(count, first, second)
    seconds = time.perf_counter() - began
    within = np.arange(count) % 1024 % 20 == 19
    planted = np.flatnonzero(within)
    recall = np.mean(number[planted] == number[planted - 1])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row(f"{count:,}", f"{seconds:.1f}", f"{memory:.2f}", f"{before:.2f}", f"{recall:.3f}")


def groups():
    heading("images", "s", "largest memory of the process, GiB", "of that, before grouping", "planted copies found")
    for count in (10_000, 40_000, 200_000):  # a process each, so that memory is its own
        subprocess.run([sys.executable, __file__, "--group", str(count)], check=True)


# ------------------------------------------------------------------------------------------------------ copies


def saved(image, path, quality=92):
    image.save(path, quality=quality)


def brighter(image, factor):
    return Image.fromarray(np.clip(np.asarray(image) * factor, 0, 255).astype(np.uint8))


CHANGES = {
    "resized to 50 %": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
    "JPEG quality 30": lambda image: image,
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "brighter by 20 %": lambda image: brighter(image, 1.2),
    "darker by 20 %": lambda image: brighter(image, 0.8),
    "cropped by 5 %": lambda image: image.crop((0, 0, round(image.width * 0.95), round(image.height * 0.95))),
}


def planted_copies():
    """Every change applied to 150 photographs; a pair in one group is right where both show one photograph."""
    heading("set", "change", "recall", "precision")
    for name in ("sign_digits", "clothing"):
        originals = photographs(name)
        digests = pd.factorize(pd.Series([path.read_bytes() for path in originals]))[0]
        rng = np.random.default_rng(0)
        with tempfile.TemporaryDirectory() as folder:
            rows = [(path, digest, "") for path, digest in zip(originals, digests, strict=True)]
            for change, changed in CHANGES.items():
                for index in rng.choice(len(originals), 150, replace=False):
                    image = Image.open(originals[index]).convert("RGB")
                    path = Path(folder) / f"{len(rows)}.jpg"
                    saved(changed(image), path, 30 if "quality" in change else 92)
                    rows.append((path, digests[index], change))
            found = audit.scan(table_of([path for path, _, _ in rows]))
        found["picture"], found["change"] = [digest for _, digest, _ in rows], [change for _, _, change in rows]
        first = found[found["change"] == ""].drop_duplicates("picture").set_index("picture")["group"]
        joined = found["group"] == first[found["picture"]].to_numpy()
        for change in CHANGES:
            of = found["change"] == change
            right, every = pairs(found, of)
            row(name, change, f"{joined[of].mean():.3f}", f"{right / every:.3f} of {every} pairs")
        of = found["change"] != ""
        right, every = pairs(found, of)
        row(name, "all together", f"{joined[of].mean():.3f}", f"{right / every:.3f} of {every} pairs")
        right, every = pairs(found, found["change"] == "__none__", originals=True)
        row(name, "between the photographs themselves", "", f"{every - right} pairs of {len(originals)} images")


def pairs(found, of, *, originals=False):
    """How many pairs in one group show one photograph, and how many pairs there are, that involve rows of `of`."""
    right = every = 0
    for _, members in found.assign(of=of).groupby("group"):
        if len(members) == 1:
            continue
        picture, chosen = members["picture"].to_numpy(), members["of"].to_numpy()
        if originals:
            chosen = (members["change"] == "").to_numpy()
        one, other = np.triu_indices(len(members), 1)
        counted = chosen[one] & chosen[other] if originals else chosen[one] | chosen[other]
        every += counted.sum()
        right += (counted & (picture[one] == picture[other])).sum()
    return int(right), int(every)


# ------------------------------------------------------------------------------------------------------ damage


def at_random(data, rng, margin=0.1):
    return int(rng.integers(int(len(data) * margin), int(len(data) * (1 - margin))))


def overwritten(data, at, new):
    return data[:at] + new + data[at + len(new) :]


DAMAGES = {
    "cut off": lambda data, rng: data[: at_random(data, rng, 0.02)],
    "last 2 bytes gone": lambda data, rng: data[:-2],
    "4 kB of zeros": lambda data, rng: overwritten(data, at_random(data, rng, 0.3), bytes(min(4096, len(data) // 4))),
    "512 bytes of noise": lambda data, rng: overwritten(
        data, at_random(data, rng, 0.2), rng.bytes(min(512, len(data) // 5))
    ),
    "16 bytes of noise": lambda data, rng: overwritten(data, at_random(data, rng, 0.2), rng.bytes(16)),
    "16 bytes lost": lambda data, rng: (at := at_random(data, rng, 0.2)) and data[:at] + data[at + 16 :],
    "1 byte changed": lambda data, rng: (
        (at := at_random(data, rng, 0.2)) and overwritten(data, at, bytes([data[at] ^ int(rng.integers(1, 256))]))
    ),
}


def encoded(path, kind):
    if kind == "JPEG":
        return path.read_bytes()
    buffer = io.BytesIO()
    Image.open(path).convert("RGB").resize((200, 200)).save(buffer, kind)
    return buffer.getvalue()


def damage(count=300):
    heading("set", "damage", "named", "of these, changed pixels", "called broken though whole")
    for name, kind in (("sign_digits", "JPEG"), ("clothing", "JPEG"), ("clothing", "PNG")):
        rng = np.random.default_rng(0)
        chosen = [photographs(name)[i] for i in rng.choice(len(photographs(name)), count, replace=False)]
        whole = [encoded(path, kind) for path in chosen]
        ending = f".{kind.lower()}"
        wrong = sum(bool(judge(data, ending)) for data in whole)
        for words, spoil in DAMAGES.items():
            spoiled = [spoil(data, rng) for data in whole]
            named = np.array([bool(judge(data, ending)) for data in spoiled])
            seen = np.array([not same_pixels(a, b) for a, b in zip(whole, spoiled, strict=True)])
            share = f"{(named & seen).sum()} of {seen.sum()} ({(named & seen).sum() / max(seen.sum(), 1):.3f})"
            row(f"{name}, {kind}", words, f"{named.sum()} of {count}", share, wrong)


def judge(data, ending):
    return files.judge(data, ending).problem


def same_pixels(one, other):
    """Whether two files decode alike; what cannot be decoded does not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            first, second = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (one, other))
        return bool(np.array_equal(first, second))
    except Exception:
        return False


# ------------------------------------------------------------------------------------------------------- labels


def build(size, classes, steps, epochs, dropout=0.2):
    """What makes a fresh compiled network; a new schedule each time."""
    from cnnlab import models, training

    def made():
        model = models.small_cnn(image_size=size, classes=classes, filters=(24, 48, 64), dropout=dropout)
        return training.compile(model, learning_rate=training.one_cycle(5e-3, steps=epochs * steps))

    return made


def mislabelled(table, share, seed):
    """The table with a share of wrong labels, and where they are."""
    rng = np.random.default_rng(seed)
    codes = table["label"].cat.codes.to_numpy().copy()
    wrong = rng.permutation(len(table))[: round(share * len(table))]
    codes[wrong] = (codes[wrong] + rng.integers(1, codes.max() + 1, len(wrong))) % (codes.max() + 1)
    truth = np.isin(np.arange(len(table)), wrong)
    return table.assign(label=pd.Categorical.from_codes(codes, dtype=table["label"].dtype)), truth


def labels(name, plantings=3, seeds=3, epochs=20):
    """5 % wrong labels: what is found, and what leaving the suspects out buys on a clean test set.

    Two recipes: one that learns by heart (no augmentation, no dropout), and one that does not, which forgives much.
    """
    from cnnlab import augment, experiments, samples

    heading("set", "planting", "suspects", "recall", "precision", "recipe", "test: noisy", "cleaned", "gains")
    size = (16, 16) if name == "digits" else (32, 32)
    policy = augment.Policy(rotate=8, zoom=0.1, shift=0.08)
    gains = {"plain": [], "augmented": []}
    with tempfile.TemporaryDirectory() as folder:
        data = samples.digits(folder + "/digits") if name == "digits" else DATA / name
        for planting in range(plantings):
            table = tables.split(tables.from_folder(data), val=0, test=0.25, seed=planting, keep=False)
            test, rest = table[table["split"] == "test"], table[table["split"] == "train"].drop(columns="split")
            noisy, wrong = mislabelled(rest, 0.05, planting)
            make = build(size, table["label"].cat.categories, -(-len(noisy) * 4 // 5 // 32), epochs)
            how = {"folds": 5, "image_size": size, "epochs": epochs, "seed": planting, "augment": policy}
            suspects = audit.label_issues(experiments.cross_validate(make, noisy, **how).predictions)
            found = noisy["path"].isin(suspects["path"]).to_numpy()
            hits = (found & wrong).sum()
            facts = (name, planting, found.sum(), f"{hits / wrong.sum():.3f}", f"{hits / found.sum():.3f}")
            for recipe, (augmenting, dropout) in {"plain": (None, 0.0), "augmented": (policy, 0.2)}.items():
                pairs = [
                    [trained(part, test, size, epochs, augmenting, dropout, seed) for part in (noisy, noisy[~found])]
                    for seed in range(seeds)
                ]
                before, after = np.mean(pairs, axis=0)
                gain = [second - first for first, second in pairs]
                gains[recipe].extend(gain)
                row(*facts, recipe, f"{before:.4f}", f"{after:.4f}", " ".join(f"{value:+.4f}" for value in gain))
    for recipe, values in gains.items():
        reach = scipy.stats.t.ppf(0.975, len(values) - 1) * scipy.stats.sem(values)
        row(name, "all", "", "", "", recipe, "", "", f"{np.mean(values):+.4f} ± {reach:.4f}")


def trained(part, test, size, epochs, augmenting, dropout, seed):
    """Test accuracy of a network trained on `part`."""
    import keras

    from cnnlab import experiments, pipelines

    keras.utils.set_random_seed(seed)
    train = pipelines.load(part, image_size=size, training=True, augment=augmenting, seed=seed)
    model = build(size, part["label"].cat.categories, len(train), epochs, dropout)()
    model.fit(train, epochs=epochs, verbose=0)
    guess = experiments.predict(model, test)
    return (guess["predicted"].astype(str) == guess["label"].astype(str)).mean()


# ---------------------------------------------------------------------------------------------------- mutations


def mutated(data, rng):
    """Some bytes of a file changed, cut, repeated or removed."""
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(data))) if rng.random() < 0.5 else int(rng.integers(min(64, len(data))))
        size = int(rng.integers(1, 1 + min(64, len(data))))
        kind = rng.integers(5)
        if kind == 0:
            data[at : at + 1] = rng.bytes(1)
        elif kind == 1:
            data[at : at + size] = rng.bytes(len(data[at : at + size]))
        elif kind == 2 and len(data) > size + 8:
            del data[at : at + size]
        elif kind == 3:
            data[at:at] = data[at : at + size]
        else:
            data[at : at + 4] = b"\xff\xff\xff\xff"[: len(data[at : at + 4])]
    return bytes(data)


def mutations(count=2000):
    """Each file is readable or has its problem named, in little time and memory."""
    warnings.simplefilter("ignore")  # Pillow's, about broken metadata
    heading("kind", "files", "named", "readable", "exceptions", "slowest, ms", "largest memory of the process, GiB")
    rng = np.random.default_rng(0)
    seeds = [Image.open(path).convert("RGB").resize((160, 120)) for path in photographs("clothing")[:12]]
    kinds = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
    for kind in kinds:
        named = readable = raised = 0
        slowest = 0.0
        for number in range(-(-count // len(kinds))):
            buffer = io.BytesIO()
            seeds[number % len(seeds)].save(buffer, kind)
            data = mutated(buffer.getvalue(), rng)
            began = time.perf_counter()
            try:
                problem = judge(data, f".{kind.lower()}")
            except Exception as error:
                raised += 1
                print(kind, repr(error))
                continue
            slowest = max(slowest, time.perf_counter() - began)
            named, readable = named + bool(problem), readable + (not problem)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        row(kind, number + 1, named, readable, raised, f"{slowest * 1000:.0f}", f"{memory:.2f}")


def main():
    parts = {"speed": speed, "groups": groups, "copies": planted_copies, "damage": damage}
    parts |= {"mutations": mutations, "labels-digits": lambda: labels("digits")}
    parts |= {"labels-sign_digits": lambda: labels("sign_digits")}
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(parts)}; all of them where none is named")
    parser.add_argument("--group", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.group:
        group_once(options.group)
        return
    for name in options.parts or parts:
        parts[name]()


if __name__ == "__main__":
    main()
