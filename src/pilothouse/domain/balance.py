"""How an endpoint's requests may be spread, as a spec names it. The decisions are in `domain.routing`."""

from typing import Literal

Balance = Literal["least_load", "round_robin", "prefix_affinity"]
Sticky = Literal["none", "subject"]
