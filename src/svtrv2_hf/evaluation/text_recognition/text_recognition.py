# SPDX-License-Identifier: Apache-2.0
"""Word accuracy and edit similarity as a metric of the `evaluate` library: load it by the path of its folder.

`evaluate` copies this file and imports the copy, so imports are absolute, and it takes the first metric that the file
names, so there is only one.
"""

from typing import Any

import datasets
import evaluate

from svtrv2_hf.evaluation.metrics import Protocol, compare


_DESCRIPTION = "How well texts were read, under the protocols of text recognition: whole words, and edit similarity."
_INPUTS = """
Args:
    predictions (`list` of `str`): the texts that were read.
    references (`list` of `str`): the true texts.
    protocol (`str`, defaults to "english"): what two texts must agree in. "english": ASCII letters and digits; "chinese":
        everything but spaces. Case is ignored in both.

Returns:
    `dict`:
        - word_accuracy (`float`): share of texts read without error, 0 to 1.
        - one_minus_ned (`float`): mean of 1 - edit distance / length of the longer text, 0 to 1.
        - case_sensitive_accuracy (`float`): word accuracy if case counts, 0 to 1.
        - samples (`int`): number of texts.
        - emptied (`int`): references of which the protocol leaves nothing. They count as read if nothing is left of the
            prediction either; the field's evaluators have it so.
        - word_accuracy_without_emptied (`float`): word accuracy without them, 0 to 1; NaN if nothing is left of any.
"""


class TextRecognition(evaluate.Metric):
    """Scores readings against labels by [`compare`]."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
            reference_urls=["https://github.com/Topdu/OpenOCR/blob/main/openrec/metrics/rec_metric.py"],
        )

    def _compute(
        self, predictions: list[str], references: list[str], protocol: Protocol = "english"
    ) -> dict[str, Any]:
        score = compare(predictions, references, protocol)
        return {
            "word_accuracy": score.word_accuracy,
            "one_minus_ned": score.one_minus_ned,
            "case_sensitive_accuracy": score.case_sensitive_accuracy,
            "samples": int(score.samples),
            "emptied": int(score.emptied),
            "word_accuracy_without_emptied": score.word_accuracy_without_emptied,
        }
