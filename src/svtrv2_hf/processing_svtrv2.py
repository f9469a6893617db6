# SPDX-License-Identifier: Apache-2.0
"""Processor: converts images and texts to tensors, and logits to texts."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.image_processing_utils import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, TextKwargs, Unpack

from .ctc_svtrv2 import (
    Token,
    align,
    beam_search,
    collapse,
    greedy_path,
    log_likelihoods,
    log_softmax,
    score,
    spans,
)


# Options of tokenizers that make no difference for labels, which have no special tokens and are padded on the right.
TEXT_OPTIONS_WITHOUT_EFFECT = {"add_special_tokens", "padding_side", "truncation_side", "split_special_tokens"}


class SVTRv2ProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]
    """Options of [`SVTRv2Processor`]; the base class adds those of the image processor."""

    _defaults = {}  # type: ignore  # transformers 5.18 requires it


class Lexicon(NamedTuple):
    """Texts and the ids of their characters, for use with any number of images."""

    texts: list[str]
    ids: list[list[int]]


def unknown_option(owner: object, name: str, known: Iterable[str]) -> TypeError:
    """Return the error for an option that does not exist, with the most similar one."""
    similar = get_close_matches(name, list(known), 1)
    hint = f" Did you mean {similar[0]!r}?" if similar else ""
    return TypeError(f"{type(owner).__name__} has no option {name!r}.{hint}")


def check_tokenizer(tokenizer: Any) -> None:
    """Raise a ValueError if tokens follow the unknown token, which the model would never predict."""
    if (added := len(tokenizer) - tokenizer.unk_token_id - 1) > 0:
        raise ValueError(
            f"The tokenizer has {added} tokens after the unknown token, which must be the last one: create the tokenizer of "
            "another charset with svtrv2_hf.build_tokenizer."
        )


class SVTRv2Processor(ProcessorMixin):
    r"""
    Processor that combines an image processor and a tokenizer.

    Args:
        image_processor ([`SVTRv2ImageProcessor`]): converts images to `pixel_values` and `image_sizes`.
        tokenizer ([`PreTrainedTokenizerFast`]): contains the charset, see `svtrv2_hf.charsets.build_tokenizer`: id 0 is the
            blank, characters follow from id 1, and the last id is the unknown token, which is not a class of the model.
    """

    valid_processor_kwargs = SVTRv2ProcessorKwargs

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, **kwargs: Any):
        super().__init__(image_processor, tokenizer, **kwargs)

    def __call__(
        self, images: Any = None, text: str | Sequence[str] | None = None, **kwargs: Unpack[SVTRv2ProcessorKwargs]
    ) -> BatchFeature:
        """
        Args:
            images: an image or a list of images, as for [`load_rgb`].
            text (`str` or `list[str]`, *optional*): the labels of the images.
            kwargs (*optional*): options of the image processor, such as `max_ratio`; options of the labels: `padding` (defaults to
                `True`), `max_length`, `truncation` and `pad_to_multiple_of`; `return_tensors`: "pt" for tensors, numpy arrays by
                default. All are also accepted in `images_kwargs`, `text_kwargs` and `common_kwargs`.

        Returns:
            With images, `pixel_values` and `image_sizes`, see [`SVTRv2ImageProcessor`]; with texts, `labels` of shape
            `(batch_size, longest label)`, padded with -100.

        Raises:
            UnreadableImageError: an image is unreadable.
            ValueError: neither images nor texts are given, their numbers differ, a text has characters outside the charset, or
                the value of an option is not supported.
            TypeError: an option is unknown, or a text is not a string.
        """
        self._check_options(kwargs)
        if images is None and text is None:
            raise ValueError("Nothing to process: pass images, text or both.")
        options = self._merge_kwargs(SVTRv2ProcessorKwargs, tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        image_options, text_options = options["images_kwargs"], options["text_kwargs"]
        tensor_types = [part.pop("return_tensors", None) for part in (image_options, text_options)]
        device = image_options.pop("device", None)
        data: dict[str, Any] = {}
        if images is not None:
            data.update(self.image_processor(images, **image_options))
        if text is not None:
            labels = self.encode([text] if isinstance(text, str) else text)
            if images is not None and len(labels) != len(data["pixel_values"]):
                raise ValueError(f"Got {len(data['pixel_values'])} images, but {len(labels)} texts.")
            data["labels"] = _arrange_labels(labels, **text_options)
        batch = BatchFeature(data, tensor_type=tensor_types[0] or tensor_types[1])
        return batch if device is None else batch.to(device)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        """Raise a TypeError for an unknown option, which the base class would ignore."""
        of_images, of_texts = set(self.image_processor.valid_kwargs.__annotations__), set(TextKwargs.__annotations__)
        groups = {"images_kwargs": of_images, "text_kwargs": of_texts, "common_kwargs": of_images | of_texts}
        known = {*groups, *of_images, *of_texts}
        for name in options:
            if name not in known:
                raise unknown_option(self, name, known | {"images", "text"})
        for group, known in groups.items():
            if unknown := set(options.get(group) or {}) - known:
                raise TypeError(f"{type(self).__name__} has no option {sorted(unknown)[0]!r} in {group}.")

    def decode(self, token_ids: Any, group_tokens: bool = True, **kwargs: Any) -> str:
        """Decode the ids of the frames of one image, of shape `(frames,)`; see [`~SVTRv2Processor.batch_decode`]."""
        return self.batch_decode([token_ids], group_tokens, **kwargs)[0]

    def batch_decode(self, sequences: Any, group_tokens: bool = True, **kwargs: Any) -> list[str]:
        """Decode the ids of frames, such as `logits.argmax(-1)`: merge repeated ids and remove blanks (CTC).

        Args:
            sequences: ids of shape `(batch_size, frames)`; negative ids are ignored.
            group_tokens (`bool`, *optional*, defaults to `True`): merge repeated ids. Decode labels with `False`, or with
                `processor.tokenizer.batch_decode`.
            kwargs (*optional*): `skip_special_tokens` and `clean_up_tokenization_spaces`, which have no effect.

        Raises:
            TypeError: the ids are not integers, or an option is unknown.
        """
        if unknown := set(kwargs) - {"skip_special_tokens", "clean_up_tokenization_spaces"}:
            raise TypeError(f"{type(self).__name__} has no option {sorted(unknown)[0]!r} for decoding.")
        blank = self.tokenizer.pad_token_id
        texts = []
        for sequence in sequences:
            ids = sequence.cpu().numpy() if isinstance(sequence, torch.Tensor) else np.asarray(sequence)
            if ids.size and (ids.ndim != 1 or ids.dtype.kind not in "iu"):
                raise TypeError(
                    "Expected a sequence of integers for each image: pass logits.argmax(-1) to batch_decode, or the output of "
                    "the model to post_process_text_recognition."
                )
            ids = ids[ids >= 0]
            ids = collapse(ids, blank) if group_tokens else ids[ids != blank]
            ids = ids[ids < self.tokenizer.unk_token_id]
            texts.append("".join(self.tokenizer.convert_ids_to_tokens(ids.tolist())))
        return texts

    @property
    def model_input_names(self) -> list[str]:
        return [*self.image_processor.model_input_names, "labels"]

    def encode(self, texts: Iterable[str], what: str = "The text") -> list[list[int]]:
        """Convert each text to the ids of its characters; `what` describes the texts in errors.

        Raises:
            ValueError: a text has characters outside the charset; the message lists them.
            TypeError: a text is not a string.
        """
        check_tokenizer(self.tokenizer)
        encoded = []
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"{what} {text!r} is of type {type(text).__name__}: pass strings.")
            ids = self.tokenizer.convert_tokens_to_ids(list(text))
            if self.tokenizer.unk_token_id in ids:
                unknown = sorted({c for c, id in zip(text, ids, strict=True) if id == self.tokenizer.unk_token_id})
                raise ValueError(f"{what} {text!r} has characters that are not in the charset: {''.join(unknown)!r}.")
            encoded.append(ids)
        return encoded

    def encode_lexicon(self, lexicon: Iterable[str] | Lexicon) -> Lexicon:
        """Prepare a list of texts for `post_process_text_recognition`, to use it for many images.

        Raises:
            ValueError: the list is empty, or a text has characters outside the charset.
        """
        if isinstance(lexicon, Lexicon):
            return lexicon
        texts = list(dict.fromkeys([lexicon] if isinstance(lexicon, str) else lexicon))
        if not texts:
            raise ValueError("The lexicon is empty: add at least one text.")
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
        """Convert outputs of the model to texts.

        Args:
            outputs ([`SVTRv2CTCOutput`]): outputs of the model, of which `logits` and `logits_lengths` are used.
            target_sizes (`list[tuple[int, int]]`, array or tensor, *optional*): `(height, width)` in pixels of each original
                image. Positions are in pixels of this image, or without it relative to the width of the resized image.
            return_characters (`bool`): add "characters", a list of {"text", "score", "start", "end"} from left to right.
            return_words (`bool`): add "words", likewise for the parts between spaces.
            allowed_characters (`str`, *optional*): predict only these characters; probabilities are conditioned on them.
            n_best (`int`, *optional*): add "alternatives", the most likely texts as a list of {"text", "score",
                "log_likelihood"}, by prefix beam search or from the lexicon, sorted by log likelihood (which may differ from
                the order of scores). The first one is the predicted text.
            lexicon (`list[str]` or [`Lexicon`], *optional*): predict the entry with the highest exact CTC likelihood. If all
                entries need more frames than the image has, the text is empty.

        Returns:
            {"text", "score"} for each image. `score` in 0..1 is the geometric mean of the characters' probabilities, each
            the maximum over the frames of the character; an empty text has the score 0. Positions are approximate.

        Raises:
            ValueError: the outputs do not match the charset, or an option contains characters outside it.
            TypeError: `outputs` is not an output of the model.
        """
        if not isinstance(outputs, Mapping):
            raise TypeError(
                f"Expected the output of the model, not an object of type {type(outputs).__name__}: pass logits as "
                '{"logits": logits}.'
            )
        check_tokenizer(self.tokenizer)
        logits = outputs["logits"]
        lengths = outputs.get("logits_lengths")
        if isinstance(logits, torch.Tensor):
            logits = logits.detach().float().cpu().numpy()
        if logits.shape[-1] == len(self.tokenizer):  # ignore the class of the unknown token
            logits = logits[..., : self.tokenizer.unk_token_id]
        if logits.shape[-1] != self.tokenizer.unk_token_id:
            raise ValueError(
                f"The model has {logits.shape[-1]} classes, but the tokenizer has {self.tokenizer.unk_token_id}, its "
                "characters and the blank: use model and processor from the same folder."
            )
        if np.isnan(logits).any():
            raise ValueError("The logits contain NaN: the weights, the configuration or the inputs are damaged.")
        if n_best is not None and n_best < 1:
            raise ValueError(f"n_best={n_best} must be 1 or more.")
        if isinstance(target_sizes, (np.ndarray, torch.Tensor)):
            target_sizes = target_sizes.tolist()
        if target_sizes is not None and len(target_sizes) != len(logits):
            raise ValueError(f"Got {len(logits)} outputs, but {len(target_sizes)} target_sizes.")
        blank = self.tokenizer.pad_token_id
        allowed = None
        if allowed_characters is not None:
            allowed = [blank, *self.encode([allowed_characters], "allowed_characters")[0]]
        entries = None if lexicon is None else self.encode_lexicon(lexicon)

        results = []
        for row in range(len(logits)):
            frames = logits[row] if lengths is None else logits[row, : int(lengths[row])]
            alternatives: list[dict[str, Any]] = []
            if entries is None and n_best is None:
                tokens = greedy_path(frames, blank, allowed)
            else:
                log_probs = log_softmax(frames, allowed)
                ranked = self._rank(log_probs, blank, n_best or 1, entries)
                aligned = [align(log_probs, ids, blank) for ids, _ in ranked]
                alternatives = [
                    {**self._result(tokens), "log_likelihood": likelihood}
                    for (_, likelihood), tokens in zip(ranked, aligned, strict=True)
                ]
                tokens = aligned[0] if aligned else []
            result = self._result(tokens)
            if return_characters or return_words:
                characters = self._characters(tokens, len(frames), target_sizes and target_sizes[row])
                if return_characters:
                    result["characters"] = characters
                if return_words:
                    result["words"] = _words(characters)
            if n_best is not None:
                result["alternatives"] = alternatives
            results.append(result)
        return results

    @staticmethod
    def _rank(
        log_probs: np.ndarray, blank: int, n_best: int, lexicon: Lexicon | None
    ) -> list[tuple[Sequence[int], float]]:
        if lexicon is None:
            return list(beam_search(log_probs, n_best, blank=blank))
        likelihoods = log_likelihoods(log_probs, lexicon.ids, blank)
        best = np.argsort(-likelihoods, kind="stable")[:n_best]
        return [(lexicon.ids[i], float(likelihoods[i])) for i in best if np.isfinite(likelihoods[i])]

    def _result(self, tokens: Sequence[Token]) -> dict[str, Any]:
        text = "".join(self.tokenizer.convert_ids_to_tokens([token.id for token in tokens]))
        return {"text": text, "score": score([token.probability for token in tokens])}

    def _characters(self, tokens: Sequence[Token], num_frames: int, size: Any) -> list[dict[str, Any]]:
        width = end_of_image = 1.0
        if size:
            height, end_of_image = size
            resized = self.image_processor.target_size(end_of_image, height)
            # Width of the original image if it were padded in proportion to the resized one.
            width = end_of_image * resized[1] / self.image_processor.content_width(end_of_image, height, resized)
        return [
            {
                "text": self.tokenizer.convert_ids_to_tokens(token.id),
                "score": token.probability,
                "start": min(start * width, float(end_of_image)),
                "end": min(end * width, float(end_of_image)),
            }
            for token, (start, end) in zip(tokens, spans(tokens, num_frames), strict=True)
        ]


def _arrange_labels(
    labels: list[list[int]],
    padding: bool | str = True,
    truncation: bool = False,
    max_length: int | None = None,
    pad_to_multiple_of: int | None = None,
    **others: Any,
) -> Any:
    """Truncate and pad labels as a tokenizer does its ids."""
    for name, value in others.items():
        if name not in TEXT_OPTIONS_WITHOUT_EFFECT and value not in (None, False):
            raise ValueError(f"{name}={value!r} is not supported for labels: leave it out.")
    if truncation and max_length is not None:
        labels = [label[:max_length] for label in labels]
    if padding in (False, "do_not_pad"):
        return labels
    length = max(map(len, labels), default=0)
    if padding == "max_length":
        length = max(length, max_length or 0)
    if pad_to_multiple_of:
        length = -(-length // pad_to_multiple_of) * pad_to_multiple_of
    return pad_labels(labels, length)


def pad_labels(labels: Sequence[Sequence[int]], length: int = 0) -> np.ndarray:
    """Combine labels in one array of shape `(batch_size, longest label)`, or `length` wide if that is more, padded with -100."""
    padded = np.full((len(labels), max([length, *map(len, labels)])), -100, dtype=np.int64)
    for row, label in zip(padded, labels, strict=True):
        row[: len(label)] = label
    return padded


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


__all__ = ["Lexicon", "SVTRv2Processor", "check_tokenizer", "pad_labels", "unknown_option"]
