"""Kernels for the tests that are forked from one process with Keras in memory: importing it takes longer than most of
what they run."""

import multiprocessing
import os
import runpy
import signal
import sys
import warnings
from pathlib import Path

from jupyter_client.provisioning import local_provisioner

EAGERLY = "CNNLAB_TESTS_EAGERLY"  # set in the environment of a kernel: without graphs
ordinary = local_provisioner.launch_kernel
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["keras", "tensorflow", "sklearn.linear_model", "matplotlib.pyplot", "ipykernel.kernelapp"]
)


class Kernel:
    """What jupyter_client asks of a process."""

    stdin = stdout = stderr = None

    def __init__(self, arguments, folder, environment):
        ready, started = _context.Pipe(duplex=False)
        self._process = _context.Process(target=_become, args=(arguments, folder, environment, started))
        self._process.start()
        started.close()
        self.pid = self._process.pid
        ready.recv()

    def poll(self):
        return self._process.exitcode

    def wait(self):
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        self.send_signal(signal.SIGTERM)


def _become(arguments, folder, environment, started):
    os.setsid()  # jupyter_client sends its signals to the whole group
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment, JPY_PARENT_PID=str(os.getppid()))  # whose end is its own
    _smaller()
    if EAGERLY in environment:
        _without_graphs()
    started.send(None)
    sys.argv[1:] = arguments
    runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)


def three_blocks(setattr=setattr):
    """Leaves EfficientNet-Lite its stem and the first 3 of 16 blocks, with their weights, and 64 features."""
    import keras

    from cnnlab.models import efficientnet_lite

    load = efficientnet_lite.load

    def load_below_top(model, name, path=None):
        load(keras.Model(model.input, model.get_layer("top_conv").input), name, path)

    setattr(efficientnet_lite, "STAGES", efficientnet_lite.STAGES[:2])
    setattr(efficientnet_lite, "TOP", 64)
    setattr(efficientnet_lite, "load", load_below_top)


def few_head_steps(setattr=setattr):
    """10 steps of 1500 for a head on stored features, in 2 epochs of 40, each of which looks at validation images."""
    from cnnlab.training import fine_tuning

    setattr(fine_tuning, "HEAD_STEPS", 10)
    setattr(fine_tuning, "HEAD_LOOKS", 2)


def _smaller():
    """Less to train and to trace: what is to be seen is that the notebook runs. Ordinary kernels have it all."""
    from keras.src.trainers.trainer import Trainer

    from cnnlab import _upstream

    three_blocks()
    few_head_steps()

    # As `training.compile` does it: TensorFlow traces a step again that makes variables, and longer in a loop.
    # In the class where Keras has it: a copy of a network asks whether another class has its own.
    compile_model = Trainer.compile

    def compile_and_build(model, *arguments, **options):
        compile_model(model, *arguments, **options | {"steps_per_execution": 1})
        _upstream.build_before_tracing(model)

    Trainer.compile = compile_and_build


def _without_graphs():
    """The few steps that most notebooks train in the tests cost less one by one than graphs for them."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    warnings.filterwarnings("ignore", "Even though the `tf.config.experimental_run_functions_eagerly`", UserWarning)


def launch(command, *, env=None, cwd=None, **options):
    """Stands in for jupyter_client's `launch_kernel`."""
    environment = dict(os.environ if env is None else env)
    if command[1:3] != ["-m", "ipykernel_launcher"] or environment.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        return ordinary(command, env=env, cwd=cwd, **options)
    return Kernel(command[3:], cwd or Path.cwd(), environment)
