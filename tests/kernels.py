"""Kernels for the tests that are forked from one process with Keras in memory: importing it takes longer than most of
what they run."""

import multiprocessing
import os
import runpy
import signal
import sys
from pathlib import Path

from jupyter_client.provisioning import local_provisioner

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
    from cnnlab.training import fine_tuning

    fine_tuning.HEAD_STEPS = 10  # of 1500: what is to be seen is that the notebook runs
    started.send(None)
    sys.argv[1:] = arguments
    runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)


def launch(command, *, env=None, cwd=None, **options):
    """Stands in for jupyter_client's `launch_kernel`."""
    environment = dict(os.environ if env is None else env)
    if command[1:3] != ["-m", "ipykernel_launcher"] or environment.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        return ordinary(command, env=env, cwd=cwd, **options)
    return Kernel(command[3:], cwd or Path.cwd(), environment)
