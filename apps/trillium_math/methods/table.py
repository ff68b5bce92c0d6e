"""The union of all methods; the field `name` says which."""

from typing import Annotated

from pydantic import Field

from trillium_math.methods.mcts_dpo import MCTSDPOMethod
from trillium_math.methods.multi_turn import DPOMethod, KTOMethod, MDPOMethod, MKTOMethod
from trillium_math.methods.oreo import OREOMethod
from trillium_math.methods.rejection import RejectionMethod
from trillium_math.methods.step_dpo import StepDPOMethod

MethodConfig = Annotated[
    MDPOMethod
    | MKTOMethod
    | DPOMethod
    | KTOMethod
    | RejectionMethod
    | StepDPOMethod
    | OREOMethod
    | MCTSDPOMethod,
    Field(discriminator="name"),
]
"""The configuration of any method."""
