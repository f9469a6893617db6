# SPDX-License-Identifier: Apache-2.0
"""Sharing on the Hub."""
