# SPDX-License-Identifier: Apache-2.0
"""Reading of datasets of any size: a function for the `map` of data engines, and resumable runs on one machine."""

from .reader import BatchReader


__all__ = ["BatchReader"]
