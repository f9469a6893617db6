# SPDX-License-Identifier: Apache-2.0
"""Everything around the model: images and texts to tensors, and logits to readings."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.image_processing_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .ctc_svtrv2 import Token, align, beam_search, best_path, log_likelihoods, log_softmax, score, spans


class Lexicon(NamedTuple):
    """Texts, and the ids of their characters, ready for any number of readings."""

    texts: list[str]
    ids: list[list[int]]


class SVTRv2Processor(ProcessorMixin):
    r"""
    An image processor and a tokenizer in one.

    Args:
        image_processor ([`SVTRv2ImageProcessor`]): images to `pixel_values` and `image_sizes`.
        tokenizer ([`PreTrainedTokenizerFast`]): the charset, as `svtrv2_hf.charsets.build_tokenizer` makes it: id 0 is the
            blank, ids from 1 are the characters, and the unknown token comes last, outside the model's head.
    """

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, **kwargs: Any):
        super().__init__(image_processor, tokenizer, **kwargs)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        max_ratio: int | str | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Args:
            images: one image or a list of them, as [`load_rgb`] takes them.
            text (`str` or `list[str]`, *optional*): the labels of the images.
            max_ratio (`int` or `"auto"`, *optional*): overrides the image processor's own; "auto" gives every line the width
                that it needs, up to 100 times the height.
            return_tensors (`str`, *optional*): "pt" for tensors; numpy arrays by default.

        Returns:
            `pixel_values` and `image_sizes` as of [`SVTRv2ImageProcessor`], and `labels` of shape
            `(batch_size, longest label)`, padded with -100; what was asked for.

        Raises:
            UnreadableImageError: an image cannot be read.
            ValueError: there is neither image nor text, their numbers differ, or a text has characters that the charset
                lacks.
            TypeError: an argument has no meaning here.
        """
        if kwargs:
            raise TypeError(f"SVTRv2Processor knows no {', '.join(map(repr, kwargs))}; it takes max_ratio.")
        if images is None and text is None:
            raise ValueError("There is nothing to process: pass images, text or both.")
        data: dict[str, Any] = {}
        if images is not None:
            data.update(self.image_processor(images, max_ratio=max_ratio))
        if text is not None:
            labels = self.encode([text] if isinstance(text, str) else text)
            if images is not None and len(labels) != len(data["pixel_values"]):
                raise ValueError(f"There are {len(data['pixel_values'])} images, but {len(labels)} texts.")
            data["labels"] = pad_labels(labels)
        return BatchFeature(data, tensor_type=return_tensors)

    @property
    def model_input_names(self) -> list[str]:
        return [*self.image_processor.model_input_names, "labels"]

    def encode(self, texts: Iterable[str], what: str = "The text") -> list[list[int]]:
        """The ids of the characters of each text; errors call it `what`.

        Raises:
            ValueError: a text has characters that the charset lacks; they are named.
        """
        encoded = []
        for text in texts:
            ids = self.tokenizer.convert_tokens_to_ids(list(text))
            if self.tokenizer.unk_token_id in ids:
                unknown = sorted({c for c, id in zip(text, ids, strict=True) if id == self.tokenizer.unk_token_id})
                raise ValueError(f"{what} {text!r} has characters that are not in the charset: {''.join(unknown)!r}.")
            encoded.append(ids)
        return encoded

    def encode_lexicon(self, lexicon: Iterable[str] | Lexicon) -> Lexicon:
        """Prepares a list of texts for `post_process_text_recognition`, for when there are many images to read.

        Raises:
            ValueError: it is empty, or a text in it has characters that the charset lacks.
        """
        if isinstance(lexicon, Lexicon):
            return lexicon
        texts = list(dict.fromkeys([lexicon] if isinstance(lexicon, str) else lexicon))
        if not texts:
            raise ValueError("The lexicon is empty: there is no text to choose from.")
        return Lexicon(texts, self.encode(texts, "The lexicon's entry"))

    def post_process_text_recognition(
        self,
        outputs: Any,
        target_sizes: Any = None,
        return_characters: bool = False,
        return_words: bool = False,
        allowed_characters: str | None = None,
        n_best: int | None = None,
        lexicon: Sequence[str] | Lexicon | None = None,
    ) -> list[dict[str, Any]]:
        """Reads the model's outputs.

        Args:
            outputs ([`SVTRv2CTCOutput`]): of the model; only `logits` and `logits_lengths` are needed.
            target_sizes (`list[tuple[int, int]]`, array or tensor, *optional*): `(height, width)` in pixels of each original image. With it
                characters and words are placed in pixels of that image, without it in shares of the width that the model was given.
            return_characters (`bool`): also "characters": a list of {"text", "score", "start", "end"}, left to right.
            return_words (`bool`): also "words": the same for the parts between spaces.
            allowed_characters (`str`, *optional*): read these characters only; probabilities are conditioned on that.
            n_best (`int`, *optional*): also "alternatives": the likeliest texts as a list of {"text", "score",
                "log_likelihood"}, best first by log likelihood, which scores need not follow; by prefix beam search or from the
                lexicon. The first is the reading.
            lexicon (`list[str]` or [`Lexicon`], *optional*): read the entry with the largest exact CTC likelihood. If none
                fits into the image's frames, the reading is empty.

        Returns:
            One {"text", "score"} for each image. `score` in 0..1 is the geometric mean of the characters' probabilities,
            each that of the best frame of the character; an empty reading has the score 0. Positions are approximate.

        Raises:
            ValueError: the outputs do not belong to this charset, or an option asks for characters outside it.
        """
        logits = outputs["logits"]
        lengths = outputs.get("logits_lengths")
        if isinstance(logits, torch.Tensor):
            logits = logits.detach().float().cpu().numpy()
        if logits.shape[-1] != self.tokenizer.unk_token_id:
            raise ValueError(
                f"The model scores {logits.shape[-1]} classes, but the tokenizer has {self.tokenizer.unk_token_id}: the "
                "blank and its characters. Model and processor are not of the same folder."
            )
        if np.isnan(logits).any():
            raise ValueError("The model computes NaN: its weights, its configuration or its input are damaged.")
        if n_best is not None and n_best < 1:
            raise ValueError(f"n_best={n_best} must be 1 or more.")
        if isinstance(target_sizes, (np.ndarray, torch.Tensor)):
            target_sizes = target_sizes.tolist()
        if target_sizes is not None and len(target_sizes) != len(logits):
            raise ValueError(f"There are {len(logits)} readings, but {len(target_sizes)} target_sizes.")
        blank = self.tokenizer.pad_token_id
        allowed = None
        if allowed_characters is not None:
            allowed = [blank, *self.encode([allowed_characters], "allowed_characters")[0]]
        entries = None if lexicon is None else self.encode_lexicon(lexicon)

        readings = []
        for row in range(len(logits)):
            frames = logits[row] if lengths is None else logits[row, : int(lengths[row])]
            log_probs = log_softmax(frames, allowed)
            alternatives: list[dict[str, Any]] = []
            if entries is None and n_best is None:
                tokens = best_path(log_probs, blank)
            else:
                ranked = self._rank(log_probs, blank, n_best or 1, entries)
                aligned = [align(log_probs, ids, blank) for ids, _ in ranked]
                alternatives = [
                    {"text": self._text(ids), "score": _confidence(tokens), "log_likelihood": likelihood}
                    for (ids, likelihood), tokens in zip(ranked, aligned, strict=True)
                ]
                tokens = aligned[0] if aligned else []
            reading: dict[str, Any] = {
                "text": self._text([token.id for token in tokens]),
                "score": _confidence(tokens),
            }
            width = end_of_image = 1.0
            if target_sizes is not None:
                width, end_of_image = self._width_with_filling(*target_sizes[row]), float(target_sizes[row][1])
            if return_characters or return_words:
                characters = self._place(tokens, len(frames), width, end_of_image)
                if return_characters:
                    reading["characters"] = characters
                if return_words:
                    reading["words"] = _words(characters)
            if n_best is not None:
                reading["alternatives"] = alternatives
            readings.append(reading)
        return readings

    @staticmethod
    def _rank(
        log_probs: np.ndarray, blank: int, n_best: int, lexicon: Lexicon | None
    ) -> list[tuple[Sequence[int], float]]:
        if lexicon is None:
            return list(beam_search(log_probs, n_best, blank=blank))
        likelihoods = log_likelihoods(log_probs, lexicon.ids, blank)
        best = np.argsort(-likelihoods, kind="stable")[:n_best]
        return [(lexicon.ids[i], float(likelihoods[i])) for i in best if np.isfinite(likelihoods[i])]

    def _text(self, ids: Sequence[int]) -> str:
        return "".join(self.tokenizer.convert_ids_to_tokens(list(ids)))

    def _width_with_filling(self, height: int, width: int) -> float:
        """Width in pixels of an original image, were it filled up as what the model sees of it is."""
        size = self.image_processor.target_size(width, height)
        return width * size[1] / self.image_processor.filled_width(width, height, size)

    def _place(
        self, tokens: Sequence[Token], num_frames: int, width: float, end_of_image: float
    ) -> list[dict[str, Any]]:
        return [
            {
                "text": self._text([token.id]),
                "score": token.probability,
                "start": min(start * width, end_of_image),
                "end": min(end * width, end_of_image),
            }
            for token, (start, end) in zip(tokens, spans(tokens, num_frames), strict=True)
        ]


def pad_labels(labels: Sequence[Sequence[int]]) -> np.ndarray:
    """Labels of any lengths to one array of shape (batch_size, longest label), padded with -100."""
    padded = np.full((len(labels), max(map(len, labels), default=0)), -100, dtype=np.int64)
    for row, label in zip(padded, labels, strict=True):
        row[: len(label)] = label
    return padded


def _confidence(tokens: Sequence[Token]) -> float:
    return score([token.probability for token in tokens])


def _words(characters: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    words: list[list[dict[str, Any]]] = [[]]
    for character in characters:
        if character["text"].isspace():
            words.append([])
        else:
            words[-1].append(character)
    return [
        {
            "text": "".join(character["text"] for character in word),
            "score": score([character["score"] for character in word]),
            "start": word[0]["start"],
            "end": word[-1]["end"],
        }
        for word in words
        if word
    ]


__all__ = ["Lexicon", "SVTRv2Processor", "pad_labels"]
