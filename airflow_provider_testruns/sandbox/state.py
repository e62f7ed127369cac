"""Everything one server knows. Nothing is kept outside it, so any number of servers can run side by side."""

from __future__ import annotations

import threading
from dataclasses import replace
from random import Random

from .clock import Clock
from .eggplant import EggplantAPI
from .faults import FaultBook
from .futureagi import FutureAgiAPI
from .mistakes import Mistake
from .omilia import OmiliaAPI
from .platform import PlatformAPI, Settings
from .traffic import Traffic


class SandboxState:
    """The state of one server.

    :param settings: how it begins; copied, and what a reset returns to.
    :param seed: repeats ids and chances; None for new ones every time.
    """

    def __init__(self, settings: Settings | None = None, seed: int | None = None) -> None:
        #: Held while the state is read or changed: by the server's thread and by whoever controls it.
        self.lock = threading.RLock()
        self.clock = Clock()
        self.random = Random(seed)
        self.settings = replace(settings) if settings else Settings()
        self.traffic = Traffic()
        self.faults = FaultBook(self.clock, self.random)
        self.eggplant = EggplantAPI(self.clock, self.settings, self.random)
        self.futureagi = FutureAgiAPI(self.clock, self.settings, self.random)
        self.omilia = OmiliaAPI(self.clock, self.settings, self.random)
        self.platforms: dict[str, PlatformAPI] = {api.name: api for api in (self.eggplant, self.futureagi, self.omilia)}

    def platform(self, name: str) -> PlatformAPI:
        """Return a platform by its name."""
        try:
            return self.platforms[name]
        except KeyError:
            raise Mistake(f"no platform {name!r}, only {', '.join(self.platforms)}") from None
