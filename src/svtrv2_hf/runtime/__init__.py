# SPDX-License-Identifier: Apache-2.0
"""Export to ONNX and OpenVINO, and inference with their runtimes."""
