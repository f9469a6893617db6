# SPDX-License-Identifier: Apache-2.0
"""The demo page of `svtrv2 demo`, and its export as a Space of the Hub."""
