# SPDX-License-Identifier: Apache-2.0
"""Images for the calibration of quantized models."""

from itertools import islice

import numpy as np

from ..console import warn
from ..data.sample import Source
from ..image_processing_svtrv2 import SVTRv2ImageProcessor, UnreadableImageError, load_rgb
from ..reporting import plural


def calibration_images(source: Source, processor: SVTRv2ImageProcessor, limit: int) -> list[np.ndarray]:
    """Prepare a random sample of the images of a source; unreadable images are counted in a warning.

    Args:
        source: the source; its labels are not used.
        processor: image processor of the model.
        limit: maximum number of images.

    Returns:
        images of shape `(3, height, width)`.

    Raises:
        ValueError: no image is readable.
    """
    images, errors = [], []
    for sample in islice(source.read(seed=0), limit):
        try:
            images.append(processor.prepare(load_rgb(sample.image, name=sample.name)))
        except UnreadableImageError as error:
            errors.append(str(error))
    if not images:
        raise ValueError(f"{source.name} has no readable image for the calibration.")
    if errors:
        warn(f"{plural(len(errors), 'image')} of {source.name} skipped in the calibration. {errors[0]}")
    return images
