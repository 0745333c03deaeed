"""Do intervals cover the truth, and does a comparison cry wolf? cnnlab beside the plain bootstraps people write.

Draws many test sets from models whose true scores are known, and counts. `plain` resamples images and takes the middle
95 %; `stratified` resamples within each class. Both ways of collecting a test set are tried: classes as they come, and
a fixed number of images of each.

Usage: python benchmarks/intervals.py [--tables 300] [--only "three classes, 7:2:1"]
"""

import argparse

import numpy as np
import pandas as pd

from cnnlab import metrics
from cnnlab.metrics.formulas import scorer, values
from cnnlab.metrics.intervals import score_limits
from cnnlab.metrics.predictions import Outcome

RESAMPLES = 300
SCORES = ("accuracy", "balanced_accuracy", "macro_precision", "macro_f1", "mcc", "log_loss", "roc_auc", "pr_auc")
# images, class frequencies, skill by class, sharpness of the probabilities
SITUATIONS = {
    "three classes, 50 images": (50, [1 / 3] * 3, [1.9] * 3, 1.0),
    "three classes, 7:2:1": (150, [0.7, 0.2, 0.1], [2.6, 1.8, 1.5], 1.5),
    "three classes, 0.995": (200, [1 / 3] * 3, [3.9] * 3, 1.5),
    "ten classes, 0.87": (300, [0.1] * 10, [2.8] * 10, 2.0),
    "five classes, 15:1": (500, [0.6, 0.2, 0.1, 0.06, 0.04], [2.5, 2.0, 2.0, 1.5, 1.5], 1.5),
}


def drawn(generator, images, prior, skill, sharpness, *, fixed=False):
    """Predictions for one test set."""
    count = len(prior)
    if fixed:
        true = np.repeat(np.arange(count), np.round(np.array(prior) * images).astype(int))
    else:
        true = generator.choice(count, images, p=prior)
    logits = generator.normal(size=(len(true), count))
    logits[np.arange(len(true)), true] += np.array(skill)[true]
    chance = np.exp(sharpness * logits)
    chance /= chance.sum(axis=1, keepdims=True)
    return Outcome(tuple(range(count)), true, chance.argmax(axis=1), chance.max(axis=1), chance)


def percentile(seen, generator, *, stratified):
    """The middle 95 % of resampled scores, as it is usually written."""
    weights = np.zeros((len(seen), RESAMPLES))
    parts = [np.flatnonzero(seen.true == code) for code in np.unique(seen.true)]
    for rows in parts if stratified else [np.arange(len(seen))]:
        chosen = generator.integers(0, len(rows), (RESAMPLES, len(rows)))
        for column, row in enumerate(chosen):
            weights[rows, column] = np.bincount(row, minlength=len(rows))
    found = scorer(seen)(weights)
    return {name: np.nanquantile(found[name], [0.025, 0.975]) for name in SCORES}


def ours(seen):
    """The intervals of `metrics.scores`."""
    return score_limits(seen, values(seen), np.arange(len(seen)), top=3, count=RESAMPLES, seed=0)


def coverage(name, tables, *, fixed):
    """One row per way: the share of intervals, in %, that contain the truth."""
    generator = np.random.default_rng(1)
    truth = values(drawn(generator, 200_000, *SITUATIONS[name][1:], fixed=fixed))
    ways = {
        "cnnlab": ours,
        "plain": lambda seen: percentile(seen, generator, stratified=False),
        "stratified": lambda seen: percentile(seen, generator, stratified=True),
    }
    hits = pd.DataFrame(0, index=list(ways), columns=list(SCORES))
    for _ in range(tables):
        seen = drawn(generator, *SITUATIONS[name], fixed=fixed)
        for way, interval in ways.items():
            found = interval(seen)
            hits.loc[way] += [found[score][0] <= truth[score] <= found[score][1] for score in SCORES]
    return 100 * hits / tables


def as_table(seen):
    """A prediction table of an outcome."""
    names = [str(name) for name in seen.classes]
    chance = pd.DataFrame(seen.probability, columns=[f"p_{name}" for name in names])
    label, predicted = (pd.Categorical.from_codes(codes, names) for codes in (seen.true, seen.predicted))
    return pd.DataFrame({"label": label, "predicted": predicted, "confidence": seen.confidence}).join(chance)


def rejections(name, pairs):
    """How often, in %, `metrics.compare` calls two equal models different; they share half of what is hard."""
    generator = np.random.default_rng(2)
    images, prior, skill, sharpness = SITUATIONS[name]
    count, hits = len(prior), pd.Series(0.0, index=[*SCORES, "McNemar"])
    for _ in range(pairs):
        true = generator.choice(count, images, p=prior)
        shared = generator.normal(size=(images, count))
        tables = []
        for _ in range(2):
            logits = np.sqrt(0.5) * (shared + generator.normal(size=(images, count)))
            logits[np.arange(images), true] += np.array(skill)[true]
            chance = np.exp(sharpness * logits)
            chance /= chance.sum(axis=1, keepdims=True)
            seen = Outcome(tuple(range(count)), true, chance.argmax(axis=1), chance.max(axis=1), chance)
            tables.append(as_table(seen))
        found = metrics.compare(*tables, bootstrap=RESAMPLES).set_index("metric")
        hits[list(SCORES)] += found.loc[list(SCORES), "p_value"] < 0.05
        hits["McNemar"] += found.loc["accuracy", "mcnemar"] < 0.05
    return 100 * hits / pairs


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", type=int, default=300)
    parser.add_argument("--only", choices=list(SITUATIONS))
    options = parser.parse_args()
    names = [options.only] if options.only else list(SITUATIONS)
    print(f"| situation | classes | interval | {' | '.join(SCORES)} |\n|{'---|' * (len(SCORES) + 3)}")
    for name in names:
        for fixed, words in ((False, "as they come"), (True, "fixed numbers")):
            for way, row in coverage(name, options.tables, fixed=fixed).iterrows():
                print(f"| {name} | {words} | {way} | {' | '.join(f'{share:.1f}' for share in row)} |", flush=True)
    print(f"\n| equal models called different | {' | '.join([*SCORES, 'McNemar'])} |\n|{'---|' * (len(SCORES) + 2)}")
    for name in names:
        shares = rejections(name, options.tables)
        print(f"| {name} | {' | '.join(f'{share:.1f}' for share in shares)} |", flush=True)


if __name__ == "__main__":
    main()
