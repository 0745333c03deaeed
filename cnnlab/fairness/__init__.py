"""Does it work as well for every camera, site or group of people? Scores and gaps per group, and narrowing a gap."""

from cnnlab.fairness.gaps import gaps
from cnnlab.fairness.groups import groups
from cnnlab.fairness.mitigation import cost, equalize

__all__ = ["cost", "equalize", "gaps", "groups"]
