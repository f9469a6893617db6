# SPDX-License-Identifier: Apache-2.0
"""Training with transformers' Trainer."""
