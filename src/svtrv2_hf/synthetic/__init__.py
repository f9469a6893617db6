# SPDX-License-Identifier: Apache-2.0
"""Synthetic text for training: fonts, text sources, and a batched torch renderer."""
