# SPDX-License-Identifier: Apache-2.0
"""Keeps secrets out of what is written, printed or uploaded: tokens, passwords, and credentials in URLs."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any


REDACTED = "***"

_SECRET_NAME = (
    r"[\w.-]*(?:tokens?|passwords?|passwd|passphrase|secrets?|credentials?|private[_-]?key|api[_-]?key|access[_-]?key"
    r"|subscription[_-]?key|wandb[_-]?key|hf_token\w*)"
)
# Names of a tokenizer's special tokens, which are not secrets.
_SPECIAL_TOKEN = r"(?:additional_special|blank|bos|cls|eos|extra_special|mask|model_specific_special|pad|sep|special|split_special|unk)_tokens?"
# Formats that providers publish: Hugging Face, GitHub, GitLab, AWS, Google, OpenAI and Anthropic, Slack, JSON Web Tokens.
_TOKEN = re.compile(
    r"\b(?:hf|api_org)_(?=[A-Za-z]*[A-Z0-9])[A-Za-z0-9]{10,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{20,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{35}|\bsk-[\w-]{20,}|\bxox[abprs]-[\w-]{10,}"
    r"|\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?:.*?-----END [A-Z ]*PRIVATE KEY-----)?",
    re.DOTALL,
)
# Also with a single slash, as libraries write addresses that they took for paths; and with @ or / in the password.
_USER_OF_URL = re.compile(r"(?i)(\bhttps?:/{1,2}|://)(?:[^\s/?#'\"]+@|[^\s/?#'\":@]+:(?!\d+(?:[/\s]|$))[^\s'\"]*@)")
_PARAMETER_OF_URL = re.compile(
    rf"(?i)(?<=[?&;#])((?:{_SECRET_NAME}|auth|access|code|[\w-]*key|pwd|sig|[\w-]*signature)(?:=|%3D))([^\s&;#'\"]+)"
)
# `--hub_token VALUE` of a command line (which argparse also takes abbreviated), `hub_token: VALUE`, "hub_token": "VALUE"
_OPTION = re.compile(
    rf"(?i)(?<![\w-])(--?(?:{_SECRET_NAME}|hub_to\w*)(?:=|\s+))(?!-|\*\*\*)('[^']*'|\"[^\"]*\"|[^\s\"]+)"
)
_JSON_VALUE = re.compile(rf"(?i)([\"']{_SECRET_NAME}[\"']\s*:\s*)(\"[^\"]*\"|'[^']*')")
_ASSIGNMENT = re.compile(r"\b([A-Z][A-Z0-9_]*(?:TOKEN|PASSWORD|SECRET|API_KEY|ACCESS_KEY)=)(?!\*\*\*)([^\s\"]+)")
_SETTING = re.compile(
    r"(?i)(?<![\w\"'])((?:password|passwd|secret|(?:hub|hf|access|auth|api)[_-]token|api[_-]?key)\s*[:=]\s*[\"']?)"
    r"(?!\*\*\*)([^\s\"'&]{6,})"
)
_HEADER = re.compile(
    r"(?i)\b(authorization\s*:\s*(?:(?:basic|bearer|digest|token)\s+)?|bearer\s+)(?!\*\*\*|bearer)([\w.+/=~-]{6,})"
)
_USER_OPTION = re.compile(r"(?<!\S)(-u\s+|--user[= ])(?!\*\*\*)([^\s:]+:[^\s\"]+)")


def is_secret_name(name: str) -> bool:
    """Whether an option, a key or an environment variable of this name holds a secret: `hub_token`, `WANDB_API_KEY`."""
    return bool(re.fullmatch(_SECRET_NAME, name, re.IGNORECASE)) and not re.fullmatch(_SPECIAL_TOKEN, name.lower())


def redact(text: str) -> str:
    """The text with each secret in it replaced by `***`.

    Secrets are recognized by the formats of well-known tokens; by their place: user and password of a URL, signatures and
    tokens among its parameters, values of options such as `--hub_token`; and as values of this process's environment
    variables with such names (`HF_TOKEN`).

    >>> redact("https://me:pass@example.org/data.parquet?sig=abc&page=2")
    'https://***@example.org/data.parquet?sig=***&page=2'
    """
    for value in _values_of_environment():
        text = text.replace(value, REDACTED)
    text = _TOKEN.sub(REDACTED, text)
    text = _USER_OF_URL.sub(rf"\g<1>{REDACTED}@", text)
    for pattern in (_PARAMETER_OF_URL, _OPTION, _ASSIGNMENT, _SETTING, _HEADER, _USER_OPTION):
        text = pattern.sub(rf"\g<1>{REDACTED}", text)
    return _JSON_VALUE.sub(
        lambda match: f'{match[1]}"{REDACTED}"' if is_secret_name(match[1].split(match[1][0])[1]) else match[0], text
    )


def redact_values(content: Any) -> Any:
    """JSON-like content with its secrets replaced: values of keys with such names, and secrets within texts."""
    if isinstance(content, Mapping):
        return {
            key: REDACTED
            if is_secret_name(str(key)) and not isinstance(value, bool) and value
            else redact_values(value)
            for key, value in content.items()
        }
    if isinstance(content, (list, tuple)):
        return [redact_values(value) for value in content]
    return redact(content) if isinstance(content, str) else content


def lines_with_secrets(text: str) -> list[int]:
    """Numbers, from 1, of the lines that hold what looks like a secret."""
    before, after = text.splitlines(), redact(text).splitlines()
    if len(before) != len(after):  # a private key of several lines
        return [next(number for number, line in enumerate(before, 1) if "PRIVATE KEY" in line)]
    return [number for number, (line, other) in enumerate(zip(before, after, strict=True), 1) if line != other]


def environment_without_secrets() -> dict[str, str]:
    """This process's environment variables but those whose names say that they hold secrets."""
    return {name: value for name, value in os.environ.items() if not is_secret_name(name)}


def _values_of_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if is_secret_name(name) and len(value) >= 8:  # shorter ones would be found in ordinary words
            yield value


__all__ = ["environment_without_secrets", "is_secret_name", "lines_with_secrets", "redact", "redact_values"]
