# SPDX-License-Identifier: Apache-2.0
"""Samples, labels, augmentation, batches and audits."""
