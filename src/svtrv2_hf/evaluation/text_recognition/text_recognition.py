# SPDX-License-Identifier: Apache-2.0
"""Word accuracy, character error rate and edit similarity as a metric of the `evaluate` library; load it with the path of this folder.

`evaluate` copies this file and imports the copy, so imports are absolute. It uses the first metric of the file, so the file
defines only one.
"""

from typing import Any

import datasets
import evaluate

from svtrv2_hf.evaluation.metrics import compare
from svtrv2_hf.evaluation.protocols import PROTOCOLS, EvaluationProtocol


_DESCRIPTION = "Accuracy of recognized texts: word accuracy, character error rate and edit similarity."
_PROTOCOLS = "\n".join(f'        - "{protocol}": {compared}' for protocol, compared in PROTOCOLS.items())
_INPUTS = f"""
Args:
    predictions (`list` of `str`): the recognized texts.
    references (`list` of `str`): the true texts.
    protocol (`str`, defaults to "exact"): characters to compare.
{_PROTOCOLS}

Returns:
    `dict`:
        - word_accuracy (`float`): share of correct predictions, 0 to 1.
        - cer (`float`): character error rate, edits / characters of the references, 0 or more; NaN without such characters.
        - one_minus_ned (`float`): mean of 1 - edit distance / length of the longer text, 0 to 1.
        - case_sensitive_accuracy (`float`): word accuracy with case, 0 to 1.
        - samples (`int`): number of texts.
        - emptied (`int`): number of references without compared characters. They count as correct if the prediction has
            none either, as in other evaluators.
        - word_accuracy_without_emptied (`float`): word accuracy without them, 0 to 1; NaN without others.
"""


class TextRecognition(evaluate.Metric):
    """Metric that scores predictions against labels with [`compare`]."""

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
        self, predictions: list[str], references: list[str], protocol: EvaluationProtocol = "exact"
    ) -> dict[str, Any]:
        score = compare(predictions, references, protocol)
        return {
            "word_accuracy": score.word_accuracy,
            "cer": score.cer,
            "one_minus_ned": score.one_minus_ned,
            "case_sensitive_accuracy": score.case_sensitive_accuracy,
            "samples": int(score.samples),
            "emptied": int(score.emptied),
            "word_accuracy_without_emptied": score.word_accuracy_without_emptied,
        }
