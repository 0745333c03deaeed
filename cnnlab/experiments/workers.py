"""Several processes, on one machine or many, that search together: KerasTuner's chief and workers.

The chief hands out points and trains nothing; every worker asks it for a point, trains it, and asks again. All run the
same program, and see the same folder. Which one a process is, its environment says:

    KERASTUNER_TUNER_ID=chief    KERASTUNER_ORACLE_IP=10.0.0.5 KERASTUNER_ORACLE_PORT=7077 python search.py
    KERASTUNER_TUNER_ID=worker_1 KERASTUNER_ORACLE_IP=10.0.0.5 KERASTUNER_ORACLE_PORT=7077 python search.py

or, shorter, `grid_search(…, distributed="10.0.0.5:7077")` with KERASTUNER_TUNER_ID, or under Slurm with nothing: the
process of rank 0 is the chief.

A worker that dies is missed: its point goes to another one, which goes on with the fold it was in.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cnnlab._common import read_bytes

BEAT = 2.0  # seconds between two signs of life of a worker
DEAD = 30.0  # seconds without one
LONGEST = 100  # bytes of a sign
NAMES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


class Part:
    """What this process is in a search: chief, worker, or alone where it has no name."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder / "alive"
        self.over = threading.Event()
        self.alone = not name
        self.is_chief = "chief" in name

    def watch(self, oracle: Any) -> None:
        """Starts what belongs to the part: signs of life of a worker, the chief's look at them."""
        if self.alone:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        work = (lambda: self._look(oracle)) if self.is_chief else self._live
        threading.Thread(target=work, daemon=True).start()

    def _live(self) -> None:
        while not self.over.is_set():
            (self.folder / self.name).write_text(str(time.time()), encoding="utf-8")
            self.over.wait(BEAT)

    def _look(self, oracle: Any) -> None:
        # What each worker last wrote, and when that was new by the chief's clock.
        seen: dict[str, tuple[bytes, float]] = {}
        while not self.over.is_set():
            for name in sorted(set(oracle.tuner_ids) | set(oracle.ongoing_trials)):
                sign = b""
                with suppress(OSError, ValueError):  # gone by now, or no note of a worker
                    sign = read_bytes(self.folder / name, limit=LONGEST)
                if seen.get(name, (b"?", 0.0))[0] != sign:
                    seen[name] = (sign, time.monotonic())
                if time.monotonic() - seen[name][1] > DEAD:
                    oracle.give_up(name)
            self.over.wait(BEAT)


@contextmanager
def role(distributed: str | None, folder: Path) -> Iterator[Part]:
    """Finds out which part this process has, and tells KerasTuner for the time of the block."""
    before = {name: os.environ.get(name) for name in NAMES}
    if distributed is not None:
        address, colon, port = distributed.rpartition(":")
        if not colon or not address or not port.isdigit():
            raise ValueError(
                f"`distributed` expects the chief as 'address:port', such as '10.0.0.5:7077'. Received: {distributed!r}"
            )
        os.environ |= dict(zip(NAMES, (_who(), address, port), strict=True))
    name = os.environ.get(NAMES[0], "") if NAMES[1] in os.environ else ""
    part = Part(name, folder)
    try:
        yield part
    finally:
        part.over.set()
        for key, value in before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value


def _who() -> str:
    named, rank = os.environ.get(NAMES[0]), os.environ.get("SLURM_PROCID")
    if named:
        return named
    if rank is not None:
        return "chief" if rank == "0" else f"worker_{rank}"
    raise ValueError(
        "`distributed` expects to know which process this is. Set KERASTUNER_TUNER_ID to 'chief' in one process and to "
        "'worker_1', 'worker_2' … in the others; under `srun`, Slurm's rank says it."
    )
