"""training.fine_tune beside fastai's fine_tune: the same weights of EfficientNetLite0, the same images, test accuracy.

Usage: CNNLAB_REAL_DATA=folder python benchmarks/against_fastai.py [--set clothing] [--seeds 3] [--python PYTHON]
PYTHON is one that has fastai, such as that of an environment of its own, made by
    python -m venv fastai && fastai/bin/pip install fastai efficientnet-lite-pytorch
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FASTAI_EPOCHS = 8  # after one for the head alone, as its own examples do


def with_fastai(rows: str, weights: str, size: int, epochs: int, seed: int) -> dict[str, float]:
    """One run by fastai's defaults, in an environment that needs neither TensorFlow nor cnnlab."""
    import pandas as pd
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    from fastai.vision.all import (
        ImageDataLoaders,
        Learner,
        Normalize,
        Resize,
        accuracy,
        apply_init,
        aug_transforms,
        create_head,
        default_split,
        set_seed,
    )

    class Features(torch.nn.Module):
        """The network without its layer of 1,000 classes."""

        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, images):
            return self.network.extract_features(images)

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    table = pd.read_csv(rows)
    known = table[table["split"] != "test"].assign(is_valid=lambda rows: rows["split"] == "val")
    set_seed(seed)
    pixels = Normalize.from_stats([127 / 255] * 3, [128 / 255] * 3, cuda=False)
    data = ImageDataLoaders.from_df(
        known, path="/", fn_col="path", label_col="label", valid_col="is_valid", bs=32, seed=seed, num_workers=0,
        item_tfms=Resize(size), batch_tfms=[*aug_transforms(), pixels],
    )  # fmt: skip
    head = create_head(network._fc.in_features, data.c)  # the rest is what `vision_learner` does, for networks it knows
    apply_init(head, torch.nn.init.kaiming_normal_)
    model = torch.nn.Sequential(Features(network), head)
    learner = Learner(data, model, metrics=accuracy, splitter=default_split)
    learner.freeze()
    began = time.perf_counter()
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(epochs)
        seconds = time.perf_counter() - began
        test = data.test_dl(table[table["split"] == "test"], with_labels=True)
        return {"accuracy": float(learner.validate(dl=test)[1]), "seconds": seconds}


def with_cnnlab(name: str, train, val, test, seed: int) -> dict[str, float]:
    """One run as `benchmarks/fine_tuning.py` makes it."""
    from fine_tuning import accuracy, tuned

    began = time.perf_counter()
    model, _ = tuned(name, train, val, seed)
    return {"seconds": time.perf_counter() - began, "accuracy": accuracy(model, test)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--set", default="clothing")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=FASTAI_EPOCHS, help="of fastai's second phase")
    parser.add_argument("--rows", type=int, help="images of each class and part at most, to try whether all runs")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--fastai", nargs=5, help=argparse.SUPPRESS)  # the run in the other environment
    options = parser.parse_args()
    if options.fastai:
        rows, weights, *numbers = options.fastai
        print(json.dumps(with_fastai(rows, weights, *map(int, numbers))))
        return
    check = subprocess.run([options.python, "-c", "import fastai, efficientnet_lite_pytorch"], capture_output=True)
    if check.returncode:
        sys.exit(
            f"{options.python} has no fastai or no efficientnet-lite-pytorch, so there is nothing to compare with. "
            "Install both (pip install fastai efficientnet-lite-pytorch), or name a Python that has them: --python."
        )
    import pandas as pd
    from fine_tuning import SETS, parts

    from cnnlab.models.efficientnet_lite import weights_path

    size = SETS[options.set][0]
    rows = [part.groupby("label", observed=True).head(options.rows or len(part)) for part in parts(options.set)]
    print("| seed | cnnlab | seconds | fastai | seconds |\n|---|---|---|---|---|")
    results = []
    table = pd.concat(rows)[["path", "label", "split"]]
    table["path"] = [str(Path(path).resolve()) for path in table["path"]]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.csv"
        table.to_csv(file, index=False)
        for seed in range(options.seeds):
            ours = with_cnnlab(options.set, *rows, seed)
            arguments = [file, weights_path("EfficientNetLite0"), size, options.epochs, seed]
            command = [options.python, __file__, "--fastai", *map(str, arguments)]
            answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            theirs = json.loads(answer.splitlines()[-1])
            results.append([ours["accuracy"], ours["seconds"], theirs["accuracy"], theirs["seconds"]])
            print("| {} | {:.3f} | {:.0f} | {:.3f} | {:.0f} |".format(seed, *results[-1]), flush=True)
    accuracy, seconds, their_accuracy, their_seconds = pd.DataFrame(results).mean()
    print(f"| mean | {accuracy:.3f} | {seconds:.0f} | {their_accuracy:.3f} | {their_seconds:.0f} |")
    print(f"\n{accuracy - their_accuracy:+.3f} in accuracy, {their_seconds / seconds:.1f} times as fast.")


if __name__ == "__main__":
    main()
