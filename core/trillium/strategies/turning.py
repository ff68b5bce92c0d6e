"""Turn a pair whose other response is the better one: what belongs to a side goes with it.

What holds of one preference alone, such as the reason for it, is left out: nothing makes it right
for the other.
"""

from dataclasses import replace

from trillium.records import PairRow

ONE_SIDED = ("rationale", "degree_label")
"""What says why the chosen response is better, or how the rejected one was made from it."""

# How likely it is that the chosen response wins, or is the sample of the reference.
_CHANCES = ("p_win", "reference_is_chosen")


def turn(row: PairRow) -> PairRow:
    """Return the pair with its sides exchanged, and with them all that belongs to a side."""
    columns = {name: value for name, value in row.columns.items() if name not in ONE_SIDED}
    for name in columns.keys() & _CHANCES:
        columns[name] = 1 - columns[name]
    if "margin" in columns:
        columns["margin"] = -columns["margin"]
    turned = replace(
        row,
        chosen=row.rejected,
        rejected=row.chosen,
        labels={name: values[::-1] for name, values in row.labels.items()},
        columns=columns,
        further={name: reply for name, reply in row.further.items() if name not in ONE_SIDED},
    )
    if row.rejected_prompt is None:
        return turned
    return replace(turned, prompt=row.rejected_prompt, rejected_prompt=row.prompt)


def is_one_sided(row: PairRow) -> bool:
    """Tell whether the pair loses a field when it is turned."""
    return any(name in row.further or name in row.columns for name in ONE_SIDED)


def describe_lost(n_lost: int) -> str:
    """Return the sentence about pairs that lost a field when they were turned."""
    return (
        f"{n_lost:,} turned pairs lost their {' or '.join(ONE_SIDED)}, which spoke for the other "
        "side; make it anew where an objective needs it"
    )
