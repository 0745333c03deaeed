"""`kill -9` at random moments, then `resume`: weights, history and best model of the uninterrupted run, bit by bit."""

import random
import signal
import subprocess
import sys
import time

import pytest

KILLS = 20
SCRIPT = """
import sys, json, hashlib
import keras, numpy as np
from cnnlab import augment, models, pipelines, samples, tables, training

folder, resume, pace = sys.argv[1], sys.argv[2] == "resume", float(sys.argv[3])
table = tables.split(tables.from_folder(samples.digits(sys.argv[4])), val=0.2, test=0.2, seed=0)
train, val = (table[table["split"] == part] for part in ("train", "val"))
keras.utils.set_random_seed(0)
model = models.small_cnn(image_size=(8, 8), classes=table["label"].cat.categories, filters=(8, 16), dropout=0.3)
training.compile(model, learning_rate=0.01, steps_per_execution=4)
policy = augment.Policy(rotate=10, shift=0.1, noise=4)
data = pipelines.load(train, image_size=(8, 8), batch_size=32, training=True, augment=policy, seed=0)
callbacks = (training.resume if resume else training.callbacks)(folder, patience=6)
callbacks[0].budget.share = 1.0 if pace else 0.01  # checkpoints often, so that kills meet them, too
callbacks.append(training.plateau(patience=1, factor=0.7))


class Paced(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        print("training", flush=True)

    def on_train_batch_begin(self, batch, logs=None):
        __import__("time").sleep(pace)


history = model.fit(
    data, validation_data=pipelines.load(val, image_size=(8, 8)), epochs=12, verbose=0, callbacks=[*callbacks, Paced()]
)
best = keras.models.load_model(folder + "/best.keras")
values = {
    "final": [v for v in (*model.get_weights(), *model.optimizer.variables)],
    "best": [v for v in (*best.get_weights(), *best.optimizer.variables)],
}
digests = {k: hashlib.sha256(b"".join(np.asarray(v).tobytes() for v in part)).hexdigest() for k, part in values.items()}
print("RESULT" + json.dumps(digests | {"history": history.history}))
"""


def command(folder, mode, pace, images):
    return [sys.executable, "-W", "ignore", "-c", SCRIPT, str(folder), mode, str(pace), str(images)]


def result_of(output):
    return next(line for line in output.splitlines() if line.startswith("RESULT"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_leave_no_trace(tmp_path):
    images = tmp_path / "digits"
    began = time.perf_counter()
    whole = subprocess.run(
        command(tmp_path / "whole", "begin", 0, images), capture_output=True, text=True, check=True
    ).stdout
    rng, kills, mode = random.Random(0), 0, "begin"
    while kills < KILLS:
        process = subprocess.Popen(
            command(tmp_path / "killed", mode, 0.02, images),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for line in process.stdout:  # whoever is killed before training begins has nothing to lose
            if line.startswith("training"):
                break
        time.sleep(rng.uniform(0, 1.5))
        finished = process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not finished or kills > 0, "the run was over before it was killed once"
        kills, mode = kills + 1, "resume"
    resumed = subprocess.run(
        command(tmp_path / "killed", "resume", 0, images), capture_output=True, text=True, check=True
    ).stdout
    print(f"{kills} kills, {time.perf_counter() - began:.0f} s")
    assert result_of(resumed) == result_of(whole)
