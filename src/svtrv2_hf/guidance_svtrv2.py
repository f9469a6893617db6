# SPDX-License-Identifier: Apache-2.0
"""Semantic guidance: a training-only branch that adds linguistic context to SVTRv2's features (paper, section 3.4).

The branch predicts every character of a label from its five left neighbors and from its five right neighbors, attending
to the image features. The context is learned by the features, so the branch is not needed for inference.

Equivalent to Topdu/OpenOCR at ae934e5: `openrec/modeling/decoders/smtr_decoder.py` (training, one layer) and
`openrec/preprocess/smtr_label_encode.py`, except that contexts are computed from the labels, on the labels' device.
"""

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_svtrv2 import SVTRv2Config


IGNORED = -100  # target of padding contexts


def left_contexts(labels: torch.Tensor, context_length: int, end: int, filler: int, pad: int):
    """Return the characters before each position of each label, and the character at the position.

    Args:
        labels (`torch.LongTensor` of shape `(batch_size, length)`): character ids, negative after the end of a label.
        context_length (`int`): characters in a context.
        end (`int`): target of the position after the last character.
        filler (`int`): id for the missing characters of contexts at the start of the text.
        pad (`int`): id for the contexts of positions after the end.

    Returns:
        `contexts` of shape `(batch_size, length + 1, context_length)` in reading order, and `targets` of shape
        `(batch_size, length + 1)`, `IGNORED` after the end.
    """
    lengths = (labels >= 0).sum(-1, keepdim=True)
    start = labels.new_full((len(labels), context_length), filler)
    contexts = torch.cat([start, labels], dim=-1).unfold(-1, context_length, 1)
    position = torch.arange(labels.shape[1] + 1, device=labels.device)
    beyond = position > lengths
    targets = F.pad(labels, (0, 1), value=IGNORED)
    targets = torch.where(position == lengths, end, targets).masked_fill(beyond, IGNORED)
    return contexts.masked_fill(beyond[..., None], pad), targets


def corrupt(contexts: torch.Tensor, targets: torch.Tensor, blank: int, vocab_size: int):
    """Replace one random character of each complete context, and append a copy with another random replacement.

    The branch thus learns to rely on the image if the context is misleading. Complete contexts are those without filler,
    from position `context_length` on. (The reference omits a copy that equals another context by chance.)

    Args:
        contexts (`torch.LongTensor` of shape `(batch_size, positions, context_length)`): see `left_contexts`.
        targets (`torch.LongTensor` of shape `(batch_size, positions)`): see `left_contexts`.
        blank (`int`): the id below `vocab_size` that is not a character.
        vocab_size (`int`): number of characters + 1.

    Returns:
        Contexts and targets, with `positions` increased by the number of complete contexts.
    """
    context_length = contexts.shape[-1]
    complete, answers = contexts[:, context_length:], targets[:, context_length:]

    def with_one_replaced() -> torch.Tensor:
        character = torch.randint(vocab_size - 1, complete.shape[:-1], device=complete.device)
        character = character + (character >= blank)
        place = torch.randint(context_length, complete.shape[:-1], device=complete.device)
        return complete.scatter(-1, place[..., None], character[..., None])

    first, second = with_one_replaced(), with_one_replaced()
    return torch.cat([contexts[:, :context_length], first, second], dim=1), torch.cat([targets, answers], dim=1)


class SVTRv2CrossAttention(nn.Module):
    """Pre-norm attention of queries `(N, Q, C)` to a memory `(N, M, C)`."""

    def __init__(self, hidden_size: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query_norm = nn.LayerNorm(hidden_size, eps=1e-6)
        self.memory_norm = nn.LayerNorm(hidden_size, eps=1e-6)
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key_value = nn.Linear(hidden_size, 2 * hidden_size)
        self.projection = nn.Linear(hidden_size, hidden_size)

    def forward(self, queries: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Attend to `memory`; `mask` of shape `(N, 1, 1, M)` is true for visible positions."""
        query = self.query(self.query_norm(queries)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        key_value = self.key_value(self.memory_norm(memory)).unflatten(-1, (2, self.num_heads, -1))
        key, value = key_value.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.projection(attended.transpose(1, 2).flatten(2))


class SVTRv2Guidance(nn.Module):
    """Guidance branch, which predicts each character from its neighboring characters and the image features.

    Ids are those of the CTC head, with end-of-text in place of the blank. The embedding has four additional ids: the
    reference's unused start-of-text, the left and the right filler, and the pad. The output layer also includes
    start-of-text, which is never a target, so that the reference's weights can be loaded and the losses match.
    """

    def __init__(self, config: SVTRv2Config):
        super().__init__()
        self.vocab_size = config.vocab_size
        self.blank_token_id = config.blank_token_id
        self.context_length = config.guidance_context_length
        self.left_filler, self.right_filler, self.pad = range(config.vocab_size + 1, config.vocab_size + 4)
        hidden_size = config.hidden_sizes[-1]
        self.character_embedding = nn.Embedding(config.vocab_size + 4, hidden_size)
        # One query per direction, and one prompt per context slot: a separate first slot, which serves as a key for empty
        # contexts, then the characters.
        self.next_token = nn.Parameter(torch.zeros(1, 1, 1, hidden_size))
        self.previous_token = nn.Parameter(torch.zeros(1, 1, 1, hidden_size))
        self.next_prompt = nn.Parameter(torch.zeros(1, 1, self.context_length + 1, hidden_size))
        self.previous_prompt = nn.Parameter(torch.zeros(1, 1, self.context_length + 1, hidden_size))
        self.context_attention = SVTRv2CrossAttention(hidden_size, num_heads=hidden_size // 32)
        self.feature_attention = SVTRv2CrossAttention(hidden_size, num_heads=2)
        self.norm = nn.LayerNorm(hidden_size, eps=1e-6)
        self.head = nn.Linear(hidden_size, config.vocab_size + 1)

    def contexts(self, labels: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return contexts and targets of both directions, left contexts first; corrupted in training mode.

        Right contexts are ordered from the last character to the first; each is in reading order.
        """
        end, pad = self.blank_token_id, self.pad
        next_character = left_contexts(labels, self.context_length, end, self.left_filler, pad)
        # Predicting the previous character is predicting the next character of the reversed text.
        lengths = (labels >= 0).sum(-1, keepdim=True)
        mirrored = lengths - 1 - torch.arange(labels.shape[1], device=labels.device)
        backwards = labels.gather(-1, mirrored.clamp(min=0)).masked_fill(mirrored < 0, IGNORED)
        contexts, targets = left_contexts(backwards, self.context_length, end, self.right_filler, pad)
        both = [next_character, (contexts.flip(-1), targets)]
        if self.training:
            both = [corrupt(contexts, targets, end, self.vocab_size) for contexts, targets in both]
        return both

    def _embed(self, contexts: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        characters = self.character_embedding(contexts) * self.character_embedding.embedding_dim**0.5
        alone = prompt[:, :, :1].expand(*contexts.shape[:2], -1, -1)
        return torch.cat([alone, prompt[:, :, 1:] + characters], dim=2)  # (B, positions, context_length + 1, C)

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            features (`torch.FloatTensor` of shape `(batch_size, hidden_size, height, width)`): the backbone's output.
            labels (`torch.LongTensor` of shape `(batch_size, length)`): character ids, negative after the end.

        Returns:
            `logits` of shape `(batch_size, positions, vocab_size + 1)`, left contexts first, and `targets` of shape
            `(batch_size, positions)`, `IGNORED` for padding.
        """
        (left, next_targets), (right, previous_targets) = self.contexts(labels)
        contexts = torch.cat([left, right], dim=1)
        embedded = torch.cat([self._embed(left, self.next_prompt), self._embed(right, self.previous_prompt)], dim=1)
        tokens = torch.cat(
            [
                self.next_token.expand(*left.shape[:2], -1, -1),
                self.previous_token.expand(*right.shape[:2], -1, -1),
            ],
            dim=1,
        )  # (B, positions, 1, C)
        known = (contexts != self.left_filler) & (contexts != self.right_filler)
        mask = F.pad(known, (1, 0), value=True).flatten(0, 1)[:, None, None]
        tokens = tokens.flatten(0, 1)
        tokens = tokens + self.context_attention(tokens, embedded.flatten(0, 1), mask)
        tokens = tokens.view(*contexts.shape[:2], -1)
        tokens = self.feature_attention(tokens, features.flatten(2).transpose(1, 2))
        return self.head(self.norm(tokens)), torch.cat([next_targets, previous_targets], dim=1)


__all__ = ["SVTRv2Guidance"]
