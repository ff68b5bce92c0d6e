"""`trillium data`: judges, routing to people, rationales, personal prompts, follow-up rewards."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trillium.strategies.cli_prompts import (
    Output,
    Seed,
    Temperature,
    Tokens,
    answers_of,
    attributes,
    check_outputs,
    safety,
    thoughts,
)

if TYPE_CHECKING:
    from trillium.records import PairRow

app = typer.Typer(no_args_is_help=True, help="Make, judge, route and enrich preference files.")

Pairs = Annotated[Path, typer.Argument(help="A file of pairs.")]

app.command()(attributes)
app.command()(thoughts)
app.command()(safety)


@app.command()
def judge(
    pairs: Pairs,
    output: Output,
    by: Annotated[list[str], typer.Option(help="URL#MODEL, or a local model; several: a jury.")],
    rounds: Annotated[int, typer.Option(min=1, help="Above 1: judges hear one another.")] = 1,
    temperature: Temperature = 0.0,
    max_new_tokens: Tokens = 160,
    seed: Seed = 0,
) -> None:
    """Judge every pair in both orders; write it as the judges see it; print their agreement."""
    from trillium.generation.interface import SamplingConfig
    from trillium.records import PairRow
    from trillium.rowfiles import load_rows
    from trillium.strategies.asking import open_asker
    from trillium.strategies.jury import judge_pairs
    from trillium.strategies.turning import describe_lost

    rows = load_rows(pairs, PairRow)
    found = judge_pairs(
        rows,
        {name: open_asker(name) for name in by},
        output.with_name(f"{output.stem}.opinions.jsonl"),
        n_rounds=rounds,
        sampling=SamplingConfig(temperature=temperature, max_new_tokens=max_new_tokens),
        seed=seed,
    )
    _replace(output, found.rows, source=pairs)
    typer.echo(
        f"{len(rows):,} pairs: {found.n_same:,} as the file has them, {found.n_turned:,} turned, "
        f"{found.n_ties:,} ties, {found.n_unreadable:,} unreadable; {len(found.rows):,} written"
    )
    if found.n_lost:
        typer.echo(describe_lost(found.n_lost))
    for name, share in found.consistent.items():
        typer.echo(f"{name}: the same side in both orders on {share:.0%} of the pairs")
    for name, value in found.kappa.items():
        typer.echo(f"{name}: kappa {value:.2f}")


@app.command()
def route(
    pairs: Pairs,
    output: Output,
    budget: Annotated[int, typer.Option(min=1, help="Pairs that people can label.")],
    by: Annotated[list[str] | None, typer.Option(help="Judges: route where they doubt.")] = None,
    pilot: Annotated[
        Path | None, typer.Option(help="People's labels of some pairs: route to likely errors.")
    ] = None,
    mixtures: Annotated[
        Path | None, typer.Option(help="Measured mixtures of labels: route to what raised them.")
    ] = None,
    answers: Annotated[
        Path | None, typer.Option(help="What people said about OUTPUT's .tasks.jsonl.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Right labels of all pairs: compare with random routing.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Say which pairs a person should label under a budget, and take the labels they gave."""
    from trillium.records import PairRow
    from trillium.rowfiles import load_rows, save_rows
    from trillium.strategies.human_labels import read_sides, write_tasks
    from trillium.strategies.route import check_ids, compare_with_random, find_gains, route_pairs
    from trillium.strategies.turning import describe_lost

    rows = load_rows(pairs, PairRow)
    check_ids(rows)
    opinions = output.with_name(f"{output.stem}.opinions.jsonl")
    labelled = read_sides(pilot, rows) if pilot is not None else {}
    said = read_sides(answers, rows) if answers is not None else {}
    gains = find_gains(
        rows,
        judges=by or [],
        pilot=labelled if pilot is not None else None,
        mixtures=mixtures,
        opinions=opinions,
        seed=seed,
    )
    found = route_pairs(rows, gains, labelled, said, budget=budget, seed=seed)
    save_rows(output, found.rows)
    tasks = output.with_name(f"{output.stem}.tasks.jsonl")
    write_tasks(tasks, found.tasks)
    typer.echo(
        f"{len(rows):,} pairs: {int(found.is_routed.sum()):,} go to people, "
        f"{len({**labelled, **said}):,} have their label, {found.n_turned:,} turned, "
        f"{found.n_ties:,} ties left out"
    )
    if found.n_lost:
        typer.echo(describe_lost(found.n_lost))
    typer.echo(f"{len(found.tasks):,} tasks for people: {tasks}")
    if truth is not None:
        right = read_sides(truth, rows)
        typer.echo(compare_with_random(rows, found, right, seed=seed))


@app.command()
def rationales(
    pairs: Pairs,
    output: Output,
    by: Annotated[str, typer.Option(help="URL#MODEL, or a local model.")],
    temperature: Temperature = 0.0,
    max_new_tokens: Tokens = 160,
    seed: Seed = 0,
) -> None:
    """Ask why each chosen response is better; the field `rationale` is for rationale_dpo."""
    from trillium.generation.interface import SamplingConfig
    from trillium.records import PairRow
    from trillium.rowfiles import load_rows, parse_rows, save_rows
    from trillium.strategies.answers import open_participant
    from trillium.strategies.rationales import enrich_with_rationales

    rows = load_rows(pairs, PairRow)
    records = enrich_with_rationales(
        rows,
        open_participant(by),
        answers_of(output),
        sampling=SamplingConfig(temperature=temperature, max_new_tokens=max_new_tokens),
        seed=seed,
    )
    save_rows(output, parse_rows(records, PairRow, where=str(pairs)))
    typer.echo(f"{len(records):,} of {len(rows):,} pairs have a rationale: {output}")


@app.command()
def personalise(
    pairs: Pairs,
    output: Output,
    held_out_output: Annotated[Path, typer.Option(help="The file for the users kept apart.")],
    user: Annotated[str, typer.Option(help="The field that names the user.")] = "user",
    examples: Annotated[int, typer.Option(min=1, help="Choices of the user in a prompt.")] = 4,
    held_out: Annotated[float, typer.Option(min=0, max=1, help="Share of users apart.")] = 0.2,
    seed: Seed = 0,
) -> None:
    """Put a user's other choices before each prompt (FSPO); users are split, not rows."""
    from trillium.records import PairRow
    from trillium.rowfiles import load_rows, read_records
    from trillium.strategies.personal import personalise as put
    from trillium.strategies.personal import read_users

    check_outputs(output, held_out_output)
    rows = load_rows(pairs, PairRow)
    users = read_users(read_records(pairs), user, str(pairs))
    found = put(rows, users, n_examples=examples, held_out=held_out, seed=seed)
    for path, part in ((output, found.train), (held_out_output, found.held_out)):
        _replace(path, part, source=pairs)
    typer.echo(
        f"{len(found.train):,} rows to train on, {len(found.held_out):,} of other users, "
        f"{found.n_without_examples:,} of users with too few choices left out"
    )


@app.command()
def followups(
    rankings: Annotated[Path, typer.Argument(help="A file: prompt, completions.")],
    output: Output,
    base: Annotated[str, typer.Option(help="The chat model that scores.")] = (
        "smollm2-135m-instruct"
    ),
) -> None:
    """Rank responses by how likely a satisfied user's next words are (FLR)."""
    from dataclasses import replace

    from trillium.policies.config import PolicyConfig
    from trillium.policies.load import load_policy
    from trillium.progress import Progress
    from trillium.rowfiles import load_rows, save_rows
    from trillium.strategies.followups import CompletionsRow, rank_by_followups

    rows = load_rows(rankings, CompletionsRow)
    policy = load_policy(PolicyConfig(base=base), seed=0)
    ranked = []
    with Progress("follow-ups", n_total=len(rows), unit="rows") as progress:
        for row in rows:
            labels = {**row.labels, "reward": tuple(rank_by_followups(row, policy))}
            ranked.append(replace(row, labels=labels))
            progress.advance(1)
    save_rows(output, ranked)
    typer.echo(f"{len(ranked):,} rankings: {output}")


def _replace(path: Path, rows: "Sequence[PairRow]", *, source: Path) -> None:
    """Write pairs; without any, leave no file of an earlier call, unless it is what was read."""
    from trillium.files import remove
    from trillium.rowfiles import save_rows

    if rows:
        save_rows(path, rows)
    elif path.resolve() != source.resolve():
        remove(path)
