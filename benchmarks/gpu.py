"""Training on an accelerator: images a second, what augmentation costs there, and whether the answers are the CPU's.

Usage: python benchmarks/gpu.py [--minutes 8] [--clothing FILE.npz] [--only WORD …] [--tiny]
       python benchmarks/gpu.py --pack FOLDER --clothing FILE.npz     packs clothing/{train,validation,test}/<class>

Runs on Keras's JAX backend with images in memory, so that neither TensorFlow nor a data set has to be there. The most
important figures come first; what no longer fits into the minutes is named. Everything is written to one JSON file
after each step ($OUT/gpu.json, or `--out`), and printed as the tables of benchmarks/README.md at the end.
"""

import argparse
import gc
import io
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
if (platforms := os.environ.get("JAX_PLATFORMS")) and "cpu" not in platforms:
    os.environ["JAX_PLATFORMS"] = platforms + ",cpu"  # to compare with

import jax
import keras
import numpy as np
from PIL import Image

from cnnlab import augment, models, training
from cnnlab._upstream import build_for_training

POLICY = augment.Policy(
    flip="horizontal", rotate=10, zoom=0.1, shift=0.1, brightness=0.2, contrast=0.2, saturation=0.2, noise=8
)
CLASSES = [str(number) for number in range(10)]
FLOAT, HALF = "float32", "mixed_bfloat16"
CPU, DEVICE = jax.devices("cpu")[0], jax.devices()[0]
LIMITS = {"first": 0, "size": 0, "seconds": 2.0, "rows": None, "epochs": 8, "batch": 256, "operations": 8, "seeds": 3}
TINY = {"first": 4, "size": 32, "seconds": 0.1, "rows": 20, "epochs": 1, "batch": 4, "operations": 1, "seeds": 1}


def pretrained(name, size, classes=CLASSES, weights=None):
    return models.pretrained(name, image_size=(size, size), classes=classes, weights=weights)


# How a network is built, its image size, and the batch size that doubling begins with.
NETWORKS = {
    "small_cnn": (lambda size: models.small_cnn(image_size=(size, size), classes=CLASSES), 128, 256),
    "residual_cnn": (lambda size: models.residual_cnn(image_size=(size, size), classes=CLASSES), 160, 128),
    "EfficientNetLite0": (lambda size: pretrained("EfficientNetLite0", size), 160, 128),
    "ResNet50": (lambda size: pretrained("ResNet50", size), 224, 128),
}
JOBS = (  # network, precision, augmented
    ("layer",), ("small_cnn", HALF, False), ("small_cnn", HALF, True), ("ResNet50", HALF, False),
    ("ResNet50", FLOAT, False), ("small_cnn", FLOAT, False), ("residual_cnn", HALF, False),
    ("residual_cnn", HALF, True), ("fine-tuning",), ("EfficientNetLite0", HALF, False),  # depthwise: minutes to compile
    ("EfficientNetLite0", HALF, True), ("residual_cnn", FLOAT, False), ("ResNet50", HALF, True),
    ("EfficientNetLite0", FLOAT, False), ("EfficientNetLite0", FLOAT, True), ("small_cnn", FLOAT, True),
    ("residual_cnn", FLOAT, True), ("ResNet50", FLOAT, True),
)  # fmt: skip
GAIN = 1.05  # what doubling the batch has to bring
BEGAN = time.perf_counter()


def say(*words):
    print(f"[{time.perf_counter() - BEGAN:6.1f} s]", *words, flush=True)


def state_of(model):
    """What a step changes, on the device, apart from the model's own copy, as a step uses its up."""
    groups = (model.trainable_variables, model.non_trainable_variables, model.optimizer.variables,
              model.metrics_variables)  # fmt: skip
    return jax.device_put(tuple([np.array(variable.value) for variable in group] for group in groups), DEVICE)


def compile_step(model, batch):
    """Keras's own training step, compiled; and what the compiler says of it."""
    began = time.perf_counter()
    shapes = tuple(jax.ShapeDtypeStruct(part.shape, part.dtype) for part in batch)
    step = jax.jit(model.train_step, donate_argnums=0).lower(state_of(model), shapes).compile()
    memory, text = step.memory_analysis(), step.as_text()
    return step, {
        "compile_s": time.perf_counter() - began,
        "gib": (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 2**30 if memory else 0.0,
        "host_calls": sum(text.count(word) for word in ("callback", "infeed", "outfeed")),
    }


def step_seconds(step, model, batch, seconds):
    """Median over rounds of steps that wait for the device once, at their end."""
    state, batch, times, count = state_of(model), jax.device_put(batch, DEVICE), [], 2
    for number in range(7):  # two to warm up, the second of which says how many steps a round takes
        began = time.perf_counter()
        for _ in range(count):
            _, state = step(state, batch)
        jax.block_until_ready(state)
        times.append((time.perf_counter() - began) / count)
        count = max(2, min(200, int(seconds / 5 / times[-1]))) if number == 1 else count
    return float(np.median(times[2:]))


def fit_seconds(step, model, images, batch_size, one_step, seconds):
    """Seconds a step within `model.fit` on arrays in memory: shuffling, copying to the device and logs included."""
    count = max(4, min(100, int(seconds / one_step), int(4e9 / images[:1].nbytes / batch_size)))
    images = np.resize(images, (count * batch_size, *images.shape[1:]))
    model.train_function = lambda state, iterator: step(state, next(iterator))
    ends = []
    clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()))
    labels = np.arange(len(images), dtype=np.int32) % len(CLASSES)
    model.fit(images, labels, batch_size=batch_size, epochs=4, verbose=0, callbacks=[clock])
    return float(np.median(np.diff(ends))) / count


def row(network, precision, augmented, *, batches, limits, until):
    """One row of the table; batch sizes are tried as long as a larger one brings something."""
    size = limits["size"] or NETWORKS[network][1]
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(precision)
    model = NETWORKS[network][0](size)
    if augmented:
        model = keras.Sequential([keras.Input((size, size, 3)), POLICY.layer(seed=0), model])
    training.compile(model, learning_rate=1e-3, steps_per_execution=1)
    build_for_training(model, (np.zeros((1, size, size, 3), np.uint8), np.zeros(1, np.int32)))
    best, kept, tried = {"images_s": 0.0}, None, {}
    for batch_size in batches:
        began = time.perf_counter()
        images = np.random.default_rng(0).integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8)
        batch = images, np.arange(batch_size, dtype=np.int32) % len(CLASSES)
        try:
            step, facts = compile_step(model, batch)
            seconds = step_seconds(step, model, batch, limits["seconds"])
        except Exception as error:
            if kept is None or not any(word in str(error).lower() for word in ("resource_exhausted", "out of memory")):
                raise
            tried[batch_size] = None  # does not fit
            break
        rate = tried[batch_size] = batch_size / seconds
        say(f"  batch {batch_size}: {rate:,.0f} images/s, compiled in {facts['compile_s']:.0f} s")
        grown = rate > GAIN * best["images_s"]
        if rate > best["images_s"]:
            best = {"batch": batch_size, "step_ms": 1e3 * seconds, "images_s": rate} | facts
            kept = step, images
        if not grown or until - time.perf_counter() < 3 * (time.perf_counter() - began):
            break
    one_step = best["step_ms"] / 1e3
    whole = fit_seconds(kept[0], model, kept[1], best["batch"], one_step, 1.5 * limits["seconds"])
    best |= {"fit_images_s": best["batch"] / whole, "in_step": one_step / whole, "tried": tried}
    if precision == FLOAT and not augmented:
        best["differences"] = differences(model, kept[1][:16])
    return {"network": network, "size": size, "precision": precision, "augmented": augmented} | best


def differences(model, images):
    """Largest difference of a probability from the CPU's: at the device's default precision, and at full float32."""
    groups = model.trainable_variables, model.non_trainable_variables
    weights = [[np.array(variable.value) for variable in group] for group in groups]

    def answers(device, precision):
        def predict(trainable, other, batch):
            return model.stateless_call(trainable, other, batch, training=False)[0]

        with jax.default_matmul_precision(precision):
            return np.asarray(jax.jit(predict)(*jax.device_put((*weights, images), device)))

    truth = answers(CPU, "highest")
    found = {name: float(np.abs(answers(DEVICE, name) - truth).max()) for name in ("default", "highest")}
    return found | {"images": len(images), "spread": float(truth.std(axis=0).max())}


def layer_alone(limits):
    """Microseconds an image of the eight operations, compiled without a network, and how far from the pipeline's."""
    size, count = limits["size"] or 160, limits["batch"]
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    images, found = jax.device_put(images, DEVICE), {}
    for policy in (POLICY, *map(POLICY.only, POLICY.operations[: limits["operations"]])):
        layer = policy.layer(seed=0)
        layer(images[:1])
        call = jax.jit(lambda state, batch, layer=layer: layer.stateless_call([], state, batch, training=True))
        state, times = [variable.value for variable in layer.non_trainable_variables], []
        for _ in range(8):
            began = time.perf_counter()
            for _ in range(5):
                pixels, state = call(state, images)
            jax.block_until_ready(pixels)
            times.append((time.perf_counter() - began) / 5 / count * 1e6)
        name = "all eight" if policy is POLICY else policy.operations[0]
        found[name] = float(np.median(times[1:]))
        say(f"  {name}: {found[name]:.3f} µs an image")
    waves = np.sin(np.arange(size)[:, None, None] / 9 + np.arange(size)[:, None] / 7 + np.arange(3))
    smooth = np.repeat((127 + 100 * waves).astype(np.uint8)[None], 16, axis=0)
    sampled = POLICY.sample(16, seed=1)
    apart = np.abs(np.asarray(POLICY.layer().apply(smooth, sampled)) - POLICY.apply(smooth, sampled))
    return {"size": size, "batch": count, "us": found, "mean_apart": float(apart.mean())}


class Batches(keras.utils.PyDataset):
    """Images in memory in batches of one size: in their order, or shuffled and augmented, each epoch anew."""

    def __init__(self, images, labels, batch_size, *, policy=None, seed=0):
        super().__init__()
        self.images, self.labels, self.batch_size, self.policy, self.seed = images, labels, batch_size, policy, seed
        self.epoch = 0

    def __len__(self):
        return len(self.labels) // self.batch_size

    def __getitem__(self, index):
        if index >= len(self):
            raise IndexError(index)
        rows = np.arange(len(self.labels))
        if self.policy is not None:
            rows = np.random.default_rng((self.seed, self.epoch)).permutation(rows)
        rows = rows[index * self.batch_size : (index + 1) * self.batch_size]
        images = self.images[rows]
        if self.policy is not None:
            images = self.policy.apply(images, self.policy.sample(rows, seed=self.seed, epoch=self.epoch))
        self.epoch += index == len(self) - 1
        return images, self.labels[rows]


def pack(folder, file):
    """Photographs prepared for 160 pixels, as JPEG data in one file that is small enough to take along."""
    from cnnlab import images

    parts = {}
    for part in ("train", "validation", "test"):
        paths, data = sorted((folder / part).glob("*/*.jpg")), []
        for path in paths:
            picture = Image.fromarray(images.prepare(path, images.Preparation((160, 160))))
            picture.save(buffer := io.BytesIO(), "JPEG", quality=95, subsampling=0)
            data.append(np.frombuffer(buffer.getvalue(), np.uint8))
        names = np.array([path.parent.name for path in paths])
        parts |= {f"{part}_data": np.concatenate(data), f"{part}_names": names}
        parts[f"{part}_ends"] = np.cumsum([len(each) for each in data])
    np.savez(file, **parts)
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


def unpacked(file, part, size, rows):
    """Images, labels and the names of the classes."""
    with np.load(file) as stored:
        pieces = np.split(stored[f"{part}_data"], stored[f"{part}_ends"][:-1])[:rows]
        names, labels = np.unique(stored[f"{part}_names"], return_inverse=True)
    pictures = [Image.open(io.BytesIO(piece.tobytes())).resize((size, size)) for piece in pieces]
    return np.stack([np.asarray(picture) for picture in pictures]), labels[:rows].astype(np.int32), names.tolist()


def fine_tuning(file, limits):
    """Test accuracy of `training.fine_tune` from ImageNet's EfficientNetLite0, seed by seed, and the CPU's answers."""
    keras.config.set_dtype_policy(FLOAT)
    size = limits["size"] or 160
    parts = [unpacked(file, part, size, limits["rows"]) for part in ("train", "validation", "test")]
    (*train, names), val, test = parts
    val, test = (Batches(*part[:2], 10 if limits["rows"] else 31) for part in (val, test))  # whole batches
    policy = augment.Policy(flip="horizontal", rotate=10, zoom=0.15, shift=0.1, brightness=0.15, contrast=0.15)
    scores, seconds = [], []
    for seed in range(limits["seeds"]):
        began = time.perf_counter()
        keras.utils.set_random_seed(seed)
        model = pretrained("EfficientNetLite0", size, names, "imagenet")
        data = Batches(*train, 10 if limits["rows"] else 25, policy=policy, seed=seed)
        with jax.default_matmul_precision("highest"):
            training.fine_tune(model, data, val, head_epochs=2, epochs=limits["epochs"], seed=seed)
            guesses = model.predict(test, verbose=0).argmax(axis=1)
        scores.append(float((guesses == test.labels[: len(guesses)]).mean()))
        seconds.append(time.perf_counter() - began)
        say(f"  seed {seed}: test accuracy {scores[-1]:.4f}, {seconds[-1]:.0f} s")
    found = {"images": len(train[1]), "tested": len(guesses), "scores": scores, "seconds": seconds}
    return found | {"mean": float(np.mean(scores)), "differences": differences(model, test.images[:64])}


def markdown(results):
    """The tables of benchmarks/README.md."""
    lines = [
        f"{results['device']}, JAX {jax.__version__}, Keras {keras.__version__}, {results['date']}.", "",
        "| network | pixels | precision | augmented | batch | step ms | images/s | in `fit` | in the step | GiB | "
        "compiled in s |", "|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for one in results["rows"]:
        lines.append(
            f"| {one['network']} | {one['size']} | {one['precision']} | {'yes' if one['augmented'] else 'no'} | "
            f"{one['batch']} | {one['step_ms']:.2f} | {one['images_s']:,.0f} | {one['fit_images_s']:,.0f} | "
            f"{one['in_step']:.1%} | {one['gib']:.1f} | {one['compile_s']:.0f} |"
        )
    lines += ["", "| probabilities, beside the CPU's | at the default precision | at full float32 |", "|---|---|---|"]
    named = [(one["network"], one) for one in results["rows"]] + [("fine-tuned", results.get("fine-tuning", {}))]
    for name, found in ((name, one["differences"]) for name, one in named if "differences" in one):
        lines.append(f"| {name} | {found['default']:.1e} | {found['highest']:.1e} |")
    if tuned := results.get("fine-tuning"):
        each = ", ".join(f"{score:.4f}" for score in tuned["scores"])
        lines += ["", f"Fine-tuned on {tuned['images']} photographs: {each}, mean {tuned['mean']:.4f} of "
                  f"{tuned['tested']}; {', '.join(f'{one:.0f}' for one in tuned['seconds'])} s."]  # fmt: skip
    if alone := results.get("layer"):
        lines += ["", f"| operation alone, {alone['size']} pixels | µs an image |", "|---|---|"]
        lines += [f"| {name} | {value:.3f} |" for name, value in alone["us"].items()]
        lines += ["", f"The pipeline's pixels, which are rounded, are {alone['mean_apart']:.2f} grey levels away."]
    return "\n".join([*lines, "", *(f"Left out for time: {name}." for name in results["skipped"])])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--clothing", type=Path)
    parser.add_argument("--only", nargs="*", default=[""], help="jobs whose name holds one of these words")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "")) / "gpu.json")
    parser.add_argument("--pack", type=Path)
    parser.add_argument("--batches", type=int, default=3, help="batch sizes to try at most")
    parser.add_argument("--tiny", action="store_true", help="seconds on any processor; its figures mean nothing")
    options = parser.parse_args()
    if options.pack:
        pack(options.pack, options.clothing)
        return
    limits, until = TINY if options.tiny else LIMITS, BEGAN + 60 * options.minutes
    jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp())  # a network that is built again compiles once
    results = {"device": DEVICE.device_kind, "date": time.strftime("%Y-%m-%d"), "rows": [], "skipped": [], "failed": {}}
    say(results["device"])
    batches, longest = {}, {}
    for job in JOBS:
        name = f"{' '.join(job[:2])}{' augmented' if job[2:] == (True,) else ''}"
        if not any(word in name for word in options.only) or (job == ("fine-tuning",) and not options.clothing):
            continue
        began = time.perf_counter()
        if until - began < longest.get(job[0], 20):
            results["skipped"].append(name)
            continue
        say(name)
        try:
            if job == ("layer",):
                results["layer"] = layer_alone(limits)
            elif job == ("fine-tuning",):
                results["fine-tuning"] = fine_tuning(options.clothing, limits)
            else:
                first = limits["first"] or NETWORKS[job[0]][2]
                sizes = batches.get(job[0], [first << power for power in range(options.batches)])
                results["rows"].append(row(*job, batches=sizes, limits=limits, until=until))
                batches.setdefault(job[0], [results["rows"][-1]["batch"]])
        except Exception as error:  # the other figures are worth having all the same
            results["failed"][name] = f"{type(error).__name__}: {str(error)[:2000]}"
            say("  failed:", results["failed"][name][:500])
        longest[job[0]] = time.perf_counter() - began
        options.out.write_text(json.dumps(results, indent=1))
        gc.collect()
    options.out.write_text(json.dumps(results, indent=1))
    print(markdown(results), flush=True)


if __name__ == "__main__":
    main()
