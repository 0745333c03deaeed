"""benchmarks/gpu.py from end to end with tiny settings, so that the few minutes with a card are not spent on faults."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py"


def run(tmp_path, *options, timeout):
    environment = os.environ | {"KERAS_BACKEND": "jax", "OUT": str(tmp_path), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, SCRIPT, "--tiny", *map(str, options)]
    said = subprocess.run(command, env=environment, check=True, timeout=timeout, capture_output=True, text=True).stdout
    return json.loads((tmp_path / "gpu.json").read_text()), said


@pytest.mark.timeout(620)
def test_a_network_and_the_layer_are_timed(tmp_path):
    results, said = run(tmp_path, "--only", "small_cnn float32", "layer", "--batches", 1, timeout=600)
    assert not results["failed"] and not results["skipped"]
    plain, augmented = results["rows"]
    assert (plain["augmented"], augmented["augmented"]) == (False, True)
    for row in results["rows"]:
        assert row["images_s"] == pytest.approx(1e3 * row["batch"] / row["step_ms"])
        assert row["in_step"] > 0 and row["host_calls"] == 0
        assert f"| small_cnn | 32 | float32 | {'yes' if row['augmented'] else 'no'} |" in said
    assert plain["differences"]["highest"] <= 1e-5 < plain["differences"]["spread"]
    assert min(results["layer"]["us"].values()) > 0
    assert results["layer"]["mean_apart"] < 0.6


@pytest.mark.timeout(200)
def test_what_does_not_fit_into_the_minutes_is_named(tmp_path):
    results, said = run(tmp_path, "--minutes", 0.1, timeout=200)
    assert not results["rows"]
    assert "Left out for time: ResNet50 mixed_bfloat16." in said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_photographs_are_packed_and_learned(tmp_path, real_data):
    file = tmp_path / "clothing.npz"
    subprocess.run([sys.executable, SCRIPT, "--pack", real_data / "clothing", "--clothing", file], check=True)
    assert file.stat().st_size < 20e6
    with np.load(file) as stored:
        assert len(stored["train_ends"]) == len(stored["train_names"]) == 500
    results, said = run(tmp_path, "--only", "fine-tuning", "--clothing", file, timeout=800)
    assert not results["failed"]
    assert results["fine-tuning"]["differences"]["highest"] <= 1e-5
    assert "Fine-tuned on 20 photographs" in said
