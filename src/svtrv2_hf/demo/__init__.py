# SPDX-License-Identifier: Apache-2.0
"""The command `svtrv2 demo`: reading in the browser, on this machine or as a Space of the Hub."""
