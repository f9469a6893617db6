# SPDX-License-Identifier: Apache-2.0
"""The commands of `svtrv2`, one module each: the signature of the function is its options, the docstring is its help.

Modules import other packages only within functions, so that `svtrv2 --help` does not import torch.
"""
