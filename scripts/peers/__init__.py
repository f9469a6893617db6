# SPDX-License-Identifier: Apache-2.0
"""Other recognisers to run beside ours. Their packages are none of the project's: each is imported where it is needed."""

from .ours import Ours, OursCompiled
from .peer import Peer, Settings, UnavailableError
from .rapid import RapidOcr
from .reference import Reference
from .tesseract import Tesseract
from .transformers_peers import (
    MgpStr,
    PPOcrV5Mobile,
    PPOcrV5Server,
    PPOcrV6Small,
    PPOcrV6Tiny,
    TrOcr,
)


# Ours comes first: the others are compared with it.
PEERS: list[type[Peer]] = [
    Ours,
    OursCompiled,
    Reference,
    RapidOcr,
    PPOcrV6Tiny,
    PPOcrV6Small,
    PPOcrV5Mobile,
    PPOcrV5Server,
    MgpStr,
    TrOcr,
    Tesseract,
]

__all__ = ["PEERS", "Ours", "Peer", "Settings", "UnavailableError"]
