# SPDX-License-Identifier: Apache-2.0
"""Scoring of readings."""
