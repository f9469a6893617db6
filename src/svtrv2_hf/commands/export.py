# SPDX-License-Identifier: Apache-2.0
"""`svtrv2 export`."""

from functools import partial
from typing import Annotated, Literal

import typer

from .options import number, option


FORMAT = "onnx: for ONNX Runtime, transformers.js and many others; openvino: for processors of Intel and AMD."
INT8 = "Quantize to 8-bit integers: a smaller file and other speed, and some predictions change."
CALIBRATE = "Images that represent those to be recognized, as in --train_data of svtrv2 train; labels are not used."
OUTPUT = "Folder to write to, with configuration and processor."


def export(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of a saved model, or default.")],
    format: Annotated[Literal["onnx", "openvino"], option(None, FORMAT)] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help=INT8)] = False,
    calibrate: Annotated[str | None, option("SOURCE", CALIBRATE)] = None,
    calibration_images: Annotated[int, number("Number of images of --calibrate.")] = 300,
    output: Annotated[str | None, option("FOLDER", OUTPUT, "the folder of the model")] = None,
) -> int:
    """Export a saved model for use without torch.

    Writes onnx/model.onnx and onnx/read.py, a program that reads images with onnxruntime, numpy and pillow, or
    openvino/openvino_model.xml and .bin. Compares the exported model with torch for many image sizes, or with --int8
    the texts of the images of --calibrate.
    """
    if int8 != (calibrate is not None):
        raise typer.BadParameter("--int8 and --calibrate SOURCE belong together.")
    from transformers.utils import logging

    from ..runtime.calibration import calibration_images as prepare
    from ..runtime.export import export as export_model
    from ..sources import open_source

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    calibration = None
    if calibrate is not None:
        from ..evaluation.benchmarks import test_split_at

        if benchmark := test_split_at(calibrate):
            raise ValueError(
                f"{calibrate} is the test split of the benchmark {benchmark}: calibrate on other images, such as those of "
                "the training."
            )
        calibration = partial(prepare, open_source(calibrate), limit=calibration_images)
    result = export_model(folder, format, output, calibration)
    for file in result.files:
        print(f"{file}\t{file.stat().st_size / 1e6:.2f} MB")
    if int8:
        print(f"The text of {result.changed} of {result.images} calibration images differs from that of torch.")
    else:
        print(f"Largest difference from the logits of torch at {result.sizes} image sizes: {result.difference:.1e}.")
    if result.without_reader:
        print(f"onnx/read.py was not written: {result.without_reader}.")
    return 0
