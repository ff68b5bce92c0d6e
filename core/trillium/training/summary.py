"""What `trillium train` prints at its end."""

from rich.table import Table

from trillium.training.align import AlignResult

_SHOWN = ("loss", "rewards/accuracies", "margin_nats", "logps/chosen", "logps/rejected", "kl")


def summarise(result: AlignResult) -> Table:
    """Return a table of the first and last step, and where the adapter is."""
    title = f"{result.n_steps} steps" + (", stopped early" if result.stopped_early else "")
    table = Table("measure", "first step", "last step", title=title, caption=str(result.adapter))
    first, last = result.metrics[0], result.metrics[-1]
    for name in _SHOWN:
        if name in first and name in last:
            table.add_row(name, f"{first[name]:.4g}", f"{last[name]:.4g}")
    for name, value in (result.evaluations[-1] if result.evaluations else {}).items():
        if name != "step":
            table.add_row(name, "", f"{value:.4g}")
    return table
