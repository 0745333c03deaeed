"""Linear probes on EfficientNet-Lite0: accuracy and seconds, and wrong labels found without training a network.

Usage: CNNLAB_REAL_DATA=folder python benchmarks/probe.py [clothing|trash|sign_digits …] [--seeds 3] [--share 0.05]
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from cnnlab import audit, experiments, tables

DATA = Path(os.environ.get("CNNLAB_REAL_DATA", ""))
SETS = ("clothing", "trash", "sign_digits")


def accuracy(predictions):
    return (predictions["predicted"].astype(str) == predictions["label"].astype(str)).mean()


def planted(table, share, seed):
    """The table with wrong labels, and which rows have one."""
    rng, classes = np.random.default_rng(seed), len(table["label"].cat.categories)
    wrong = rng.permutation(len(table))[: round(share * len(table))]
    codes = table["label"].cat.codes.to_numpy().copy()
    codes[wrong] = (codes[wrong] + rng.integers(1, classes, len(wrong))) % classes
    return table.assign(label=pd.Categorical.from_codes(codes, dtype=table["label"].dtype)), set(table.index[wrong])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.05, help="of labels that are made wrong")
    options = parser.parse_args()
    suspects = []
    print("| images | features, s | probe of 5 folds, s | accuracy, out of fold | test accuracy, one probe |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["CNNLAB_CACHE"] = cache
        for name in options.sets or SETS:
            table = tables.from_folder(DATA / name)
            began = time.perf_counter()
            experiments.features("EfficientNetLite0", table, pyramid=True)
            middle = time.perf_counter()
            probe = experiments.linear_probe(table)
            end = time.perf_counter()
            if "split" not in table:
                table = tables.split(table, val=0.15, test=0.2, seed=0)
            train, test = table[table["split"] != "test"], table[table["split"] == "test"]
            alone = accuracy(experiments.linear_probe(train, test=test))
            figures = f"{middle - began:.0f} | {end - middle:.0f} | {accuracy(probe):.3f} | {alone:.3f} ({len(test)})"
            print(f"| {name} ({len(table):,}) | {figures} |", flush=True)
            for seed in range(options.seeds):
                noisy, wrong = planted(table.reset_index(drop=True), options.share, seed)
                found = set(audit.label_issues(experiments.linear_probe(noisy, seed=seed)).index)
                hits = len(found & wrong)
                suspects.append(
                    f"| {name} | {seed} | {len(found)} | {hits / len(wrong):.3f} | {hits / len(found):.3f} |"
                )
    print("\n| images | seed | suspects | recall | precision |\n|---|---|---|---|---|", *suspects, sep="\n")


if __name__ == "__main__":
    main()
