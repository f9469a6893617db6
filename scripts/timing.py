# SPDX-License-Identifier: Apache-2.0
"""Comparison of cases that were timed in turn."""

import numpy as np


def paired_ratio(seconds: np.ndarray, others: np.ndarray) -> float:
    """Return the time of a case relative to `others`: the median over rounds of the ratio of their medians in the round."""
    return float(np.median(np.median(seconds, axis=1) / np.median(others, axis=1)))
