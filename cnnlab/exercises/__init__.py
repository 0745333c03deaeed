"""Questions of the notebooks that answer back: right, or what is off and the next of three hints.

>>> from cnnlab import exercises
>>> exercises.check("02.1", ...)
02.1 waits for your answer: a whole number, instead of the dots.
"""

from cnnlab.exercises.catalogue import Exercise, markdown
from cnnlab.exercises.checking import Reply, check, judge, progress

__all__ = ["Exercise", "Reply", "check", "judge", "markdown", "progress"]
