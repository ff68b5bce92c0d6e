"""The union of all localisers; the field `name` says which."""

from typing import Annotated

from pydantic import Field

from trillium_math.localisation.judge import JudgeLocaliser
from trillium_math.localisation.monte_carlo import MonteCarloLocaliser
from trillium_math.localisation.oracle import OracleLocaliser

LocaliserConfig = Annotated[
    MonteCarloLocaliser | JudgeLocaliser | OracleLocaliser, Field(discriminator="name")
]
"""The configuration of any localiser."""
