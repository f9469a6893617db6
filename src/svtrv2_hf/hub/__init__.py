# SPDX-License-Identifier: Apache-2.0
"""Checks, model cards and uploads of saved models."""
