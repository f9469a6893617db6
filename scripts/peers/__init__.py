# SPDX-License-Identifier: Apache-2.0
"""Other models to compare with. Their packages are not dependencies of the project: each is imported only when used."""

from .ours import Ours
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


# Ours is the first: the others are compared with it.
PEERS: list[type[Peer]] = [
    Ours,
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
