# SPDX-License-Identifier: Apache-2.0
"""Text drawn for training: fonts, texts, and a renderer in batched torch."""
