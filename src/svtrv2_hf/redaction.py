# SPDX-License-Identifier: Apache-2.0
"""Redaction of secrets in text that is written, printed or uploaded: tokens, passwords, and credentials in URLs."""

import os
import re
from collections.abc import Mapping
from typing import Any


REDACTED = "***"

_SECRET_NAME = (
    r"[\w.-]*(?:tokens?|passwords?|passwd|passphrase|secrets?|credentials?|private[_-]?key|api[_-]?key|access[_-]?key"
    r"|subscription[_-]?key|wandb[_-]?key|hf_token\w*)"
)
# Names of the special tokens of a tokenizer, which are not secrets.
_SPECIAL_TOKEN = r"(?:additional_special|blank|bos|cls|eos|extra_special|mask|model_specific_special|pad|sep|special|split_special|unk)_tokens?"
# Published formats of Hugging Face, GitHub, GitLab, AWS, Google, OpenAI and Anthropic, Slack, JSON Web Tokens, and private keys.
_TOKEN = re.compile(
    r"\b(?:hf|api_org)_(?=[A-Za-z]*[A-Z0-9])[A-Za-z0-9]{10,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{20,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{35}|\bsk-[\w-]{20,}|\bxox[abprs]-[\w-]{10,}"
    r"|\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?:.*?-----END [A-Z ]*PRIVATE KEY-----)?",
    re.DOTALL,
)
# The user and the password of a URL. A single slash too, since libraries print URLs that they took for paths; passwords may contain @ and /.
_USER_OF_URL = re.compile(r"(?i)(\bhttps?:/{1,2}|://)(?:[^\s/?#'\"]+@|[^\s/?#'\":@]+:(?!\d+(?:[/\s]|$))[^\s'\"]*@)")
# Secrets that follow a name, which is group 1.
_NAMED = [
    re.compile(pattern)
    for pattern in (
        # parameters of a URL
        rf"(?i)(?<=[?&;#])((?:{_SECRET_NAME}|auth|access|code|[\w-]*key|pwd|sig|[\w-]*signature)(?:=|%3D))([^\s&;#'\"]+)",
        # --hub_token VALUE, which argparse also accepts abbreviated
        rf"(?i)(?<![\w-])(--?(?:{_SECRET_NAME}|hub_to\w*)(?:=|\s+))(?!-|\*\*\*)('[^']*'|\"[^\"]*\"|[^\s\"]+)",
        # HF_TOKEN=VALUE
        r"\b([A-Z][A-Z0-9_]*(?:TOKEN|PASSWORD|SECRET|API_KEY|ACCESS_KEY)=)(?!\*\*\*)([^\s\"]+)",
        # hub_token: VALUE
        r"(?i)(?<![\w\"'])((?:password|passwd|secret|(?:hub|hf|access|auth|api)[_-]token|api[_-]?key)\s*[:=]\s*[\"']?)"
        r"(?!\*\*\*)([^\s\"'&]{6,})",
        # headers of HTTP
        r"(?i)\b(authorization\s*:\s*(?:(?:basic|bearer|digest|token)\s+)?|bearer\s+)(?!\*\*\*|bearer)([\w.+/=~-]{6,})",
        # curl --user NAME:PASSWORD
        r"(?<!\S)(-u\s+|--user[= ])(?!\*\*\*)([^\s:]+:[^\s\"]+)",
    )
]
_JSON_VALUE = re.compile(rf"(?i)([\"']({_SECRET_NAME})[\"']\s*:\s*)(\"[^\"]*\"|'[^']*')")


def is_secret_name(name: str) -> bool:
    """Return whether an option, key or environment variable of this name contains a secret: `hub_token`, `WANDB_API_KEY`."""
    return bool(re.fullmatch(_SECRET_NAME, name, re.IGNORECASE)) and not re.fullmatch(_SPECIAL_TOKEN, name.lower())


def redact(text: str) -> str:
    """Replace each secret in a text by `***`.

    Secrets are recognized by the formats of well-known tokens; by their position: user and password of a URL, signatures
    and tokens among its parameters, values of options such as `--hub_token`; and as values of environment variables of
    this process with such names (`HF_TOKEN`).

    >>> redact("https://me:pass@example.org/data.parquet?sig=abc&page=2")
    'https://***@example.org/data.parquet?sig=***&page=2'
    """
    for name, value in os.environ.items():
        if is_secret_name(name) and len(value) >= 8:  # shorter ones occur in ordinary words
            text = text.replace(value, REDACTED)
    text = _TOKEN.sub(REDACTED, text)
    text = _USER_OF_URL.sub(rf"\g<1>{REDACTED}@", text)
    for pattern in _NAMED:
        text = pattern.sub(rf"\g<1>{REDACTED}", text)
    return _JSON_VALUE.sub(lambda match: f'{match[1]}"{REDACTED}"' if is_secret_name(match[2]) else match[0], text)


def redact_values(content: Any) -> Any:
    """Replace the secrets in JSON-like content: values of keys with secret names, and secrets within texts."""
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
    """Return the numbers, from 1, of the lines that contain a possible secret."""
    before, after = text.splitlines(), redact(text).splitlines()
    if len(before) != len(after):  # a private key of several lines
        return [next(number for number, line in enumerate(before, 1) if "PRIVATE KEY" in line)]
    return [number for number, (line, other) in enumerate(zip(before, after, strict=True), 1) if line != other]


def environment_without_secrets() -> dict[str, str]:
    """Return the environment variables of this process except those with secret names."""
    return {name: value for name, value in os.environ.items() if not is_secret_name(name)}
