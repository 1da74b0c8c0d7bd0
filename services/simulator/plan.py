"""What the market journal depends on: the plan out of the settings, and what happens besides."""

from dataclasses import dataclass
from typing import Literal

from services.simulator.settings import SimulatorSettings

Kind = Literal["clock", "create", "halt"]
Intervention = tuple[Kind, int, int]
"""(kind, value, at) as MarketModel.intervene takes them."""


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What of the settings the journal depends on, besides epoch and length; rates per second, times in seconds."""

    seed: int
    markets: int
    rate: float
    new_market_every_s: float
    closing_share: float
    close_after_s_min: float
    close_after_s_max: float
    pause_every_s: float
    combo_share: float = 0.0
    news_every_s: float = 0.0

    @classmethod
    def of(cls, settings: SimulatorSettings) -> "ModelPlan":
        return cls(**{name: getattr(settings, name) for name in cls.__slots__})
