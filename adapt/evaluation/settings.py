"""Section `evaluate`: how answers are judged and drawn."""

from adapt.attention.settings import AnchorConfig
from adapt.params import Count, Natural, Seed, Settings, Shared


class Config(Settings):
    """Section `evaluate`."""

    bootstrap: Count
    panels: Natural
    anchor: Shared[AnchorConfig]
    seed: Shared[Seed]
