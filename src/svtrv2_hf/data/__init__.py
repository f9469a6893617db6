# SPDX-License-Identifier: Apache-2.0
"""Labelled images: where they come from, what their labels may be, and how they become batches of one size."""
