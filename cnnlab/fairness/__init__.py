"""Does it work as well for every camera, site or group of people? Scores and gaps per group, and narrowing a gap."""

from cnnlab.fairness.mitigation import cost, equalize
from cnnlab.fairness.rates import gaps, groups

__all__ = ["cost", "equalize", "gaps", "groups"]
