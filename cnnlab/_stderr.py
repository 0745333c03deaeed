"""Holds back what C++ code writes to the terminal before any setting of its library is read."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def native_stderr_held(*, shown_on_error: bool = True) -> Iterator[None]:
    """Holds back what C++ code and child processes write to file descriptor 2; lets it out if the block raises."""
    try:
        sys.stderr.flush()
        saved = os.dup(2)
    except OSError:  # no descriptor 2, as under some services: nothing to hold
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            if shown_on_error:
                held.seek(0)
                os.write(saved, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
