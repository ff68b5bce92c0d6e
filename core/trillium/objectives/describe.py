"""The table of objectives as text: for a terminal, the README or a program; or one in full."""

import difflib
import inspect
import json
from collections.abc import Mapping

from trillium.errors import ConfigError
from trillium.objectives.batch import Needs
from trillium.objectives.configs import RowConfig
from trillium.objectives.table import OBJECTIVES, Objective, needs_of

README_MARKS = ("<!-- objectives -->", "<!-- /objectives -->")
"""The lines between which README.md holds `markdown_table`."""


def console_table() -> str:
    """Return one aligned line per objective."""
    rows = [("NAME", "ARXIV", "TRL 1.16", "NEEDS", "")]
    rows += [
        (row.name, row.arxiv, row.trl, describe_needs(_needs_by_default(row)), row.help)
        for row in OBJECTIVES.values()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip()
        for row in rows
    )


def markdown_table() -> str:
    """Return the method table of the README."""
    head = [
        "| method | paper | needs | in one line | trainer | TRL 1.16 |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join(
        head
        + [
            f"| `{row.name}` | [{row.arxiv}](https://arxiv.org/abs/{row.arxiv}) "
            f"| {describe_needs(_needs_by_default(row))} | {row.help} | {_short_trainer(row)} "
            f"| {row.trl} |"
            for row in OBJECTIVES.values()
        ]
    )


def json_rows() -> list[str]:
    """Return one JSON object per objective."""
    return [
        json.dumps(
            {
                "name": row.name,
                "arxiv": row.arxiv,
                "trl": row.trl,
                "help": row.help,
                "needs": vars(row.needs),
                "trainer": _short_trainer(row),
                "options": row.config.model_json_schema()["properties"],
            }
        )
        for row in OBJECTIVES.values()
    ]


def describe(name: str) -> str:
    """Return the whole story of one objective, or raise ConfigError with the nearest name."""
    objective = _find(name)
    options = objective.config.model_json_schema()["properties"]
    needs = describe_needs(_needs_by_default(objective))
    most = describe_needs(objective.needs)
    lines = [
        f"{objective.name}: {objective.help}",
        f"https://arxiv.org/abs/{objective.arxiv}   TRL 1.16: {objective.trl}",
        f"needs: {needs}" + (f" (at most, by its options: {most})" if most != needs else ""),
        "trainer: " + _trainer(objective),
        "",
        inspect.getdoc(objective.function) or "",
        "",
        "options:",
    ]
    lines += [
        f"  {option} = {json.dumps(schema['default'])}   {_bounds(schema)}{schema['description']}"
        for option, schema in options.items()
        if option != "name"
    ]
    return "\n".join(lines)


def _needs_by_default(objective: Objective) -> Needs:
    """Return what the objective reads when no option is set."""
    config = objective.config()
    return needs_of(config) if isinstance(config, RowConfig) else objective.needs


def describe_needs(needs: Needs) -> str:
    """Return what an objective reads, in words."""
    words = [_SHAPES[needs.shape]]
    if needs.reference:
        words.append("reference")
    if needs.lengths:
        words.append("lengths")
    if needs.mismatched:
        words.append("mismatched responses")
    if needs.prompts:
        words.append("scored prompts")
    words += [f"label `{name}`" for name in needs.labels]
    words += [f"column `{name}`" for name in (*needs.columns, *needs.behind)]
    words += [f"response `{name}`" for name in needs.paths]
    words += [f"`{name}`" for name in needs.computed if name in _OWN_PASSES]
    words += [f"`{name}`" for name in needs.further]
    return ", ".join(words)


# Computed arguments that cost more than a sum of log-probabilities.
_OWN_PASSES = {
    "kl",
    "reverse_kl",
    "forward_kl",
    "mask_u",
    "mask_d",
    "values",
    "degree_logits",
    "step_weight",
}
_SHAPES = {
    "pair": "pairs",
    "single": "single responses",
    "list": "ranked lists",
    "steps": "search trees",
    "pair_token": "tokens of pairs",
    "token": "tokens of trajectories",
    "rollout": "samples",
    "embedding": "embeddings",
}


_ROWS = {
    "pair": "pairs",
    "pair_token": "pairs",
    "single": "single responses",
    "list": "rankings",
    "steps": "search trees",
    "token": "trajectories",
}


def _short_trainer(objective: Objective) -> str:
    if objective.is_trainable:
        return "yes"
    return "function" if objective.recipe is None else "recipe"


def _trainer(objective: Objective) -> str:
    """Say whether a run file may name the objective, or what trains with it instead."""
    if objective.is_trainable:
        return f"yes, from {_ROWS[objective.needs.shape]}"
    if objective.recipe is not None:
        return f"no, a recipe: {objective.recipe}"
    return "no, a function to call"


def _find(name: str) -> Objective:
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    nearest = difflib.get_close_matches(name, OBJECTIVES, n=1, cutoff=0)[0]
    raise ConfigError(
        f'objectives: there is no objective "{name}" (see trillium objectives list); '
        f"did you mean {nearest}?"
    )


def _bounds(schema: Mapping[str, object]) -> str:
    """Return the bounds or choices of an option in brackets."""
    signs = {
        "exclusiveMinimum": ">",
        "minimum": ">=",
        "exclusiveMaximum": "<",
        "maximum": "<=",
    }
    bounds = [f"{sign} {schema[key]}" for key, sign in signs.items() if key in schema]
    choices = schema.get("enum")
    if isinstance(choices, list):
        bounds.append(" | ".join(map(str, choices)))
    return f"({', '.join(bounds)}) " if bounds else ""
