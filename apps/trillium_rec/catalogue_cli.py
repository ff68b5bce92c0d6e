"""`trillium rec catalogue`: add, hide and retire the items of a run without training again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from trillium_rec.live_catalogue import LiveCatalogue
    from trillium_rec.semantic_ids import State

app = typer.Typer(no_args_is_help=True, help="Change the items of a run without training again.")

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]
Items = Annotated[list[str], typer.Argument(metavar="ITEM...", help="Ids of items.")]


@app.command()
def show(run: RunFolder) -> None:
    """Say which revision is in force, and how many items are active, hidden and retired."""
    from trillium_rec.served_run import ServedRun

    typer.echo(_describe(ServedRun.open(run).catalogue()))


@app.command()
def add(
    run: RunFolder,
    items: Annotated[Path, typer.Argument(help="JSON lines: id, title, and text or vector.")],
) -> None:
    """Give new items the nearest free codes; a service takes them up by itself."""
    from trillium_rec.live_catalogue import lock_catalogue, publish
    from trillium_rec.new_items import read_new_items
    from trillium_rec.served_run import ServedRun

    served, new = ServedRun.open(run), read_new_items(items)
    with lock_catalogue(run):
        live = served.catalogue().with_items(new)
        publish(run, live)
    typer.echo(_describe(live))


@app.command()
def hide(run: RunFolder, items: Items) -> None:
    """Recommend these items no more, until they are unhidden."""
    _set_state(run, items, "hidden")


@app.command()
def unhide(run: RunFolder, items: Items) -> None:
    """Recommend hidden items again."""
    _set_state(run, items, "active")


@app.command()
def retire(run: RunFolder, items: Items) -> None:
    """Recommend these items never again; their codes are not given to others."""
    _set_state(run, items, "retired")


def _set_state(run: Path, items: list[str], state: "State") -> None:
    from trillium_rec.live_catalogue import lock_catalogue, publish
    from trillium_rec.served_run import ServedRun

    served = ServedRun.open(run)
    with lock_catalogue(run):
        live = served.catalogue().with_state(items, state)
        publish(run, live)
    typer.echo(_describe(live))


def _describe(live: "LiveCatalogue") -> str:
    ids = live.ids
    n_hidden, n_retired = int((ids.states == 1).sum()), int((ids.states == 2).sum())
    return (
        f"ids {ids.version}, revision {ids.revision}: {int(ids.is_active.sum()):,} active items, "
        f"{n_hidden:,} hidden, {n_retired:,} retired"
    )
