"""The commands of `trillium data` that begin with prompts: attributes, thoughts and safety."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from trillium.records import PairRow

Output = Annotated[Path, typer.Option(help="The file to write (.jsonl or .parquet).")]
Tokens = Annotated[int, typer.Option(min=1, help="Tokens of an answer.")]
Seed = Annotated[int, typer.Option(help="Of what is sampled.")]
Temperature = Annotated[float, typer.Option(min=0)]


def attributes(
    prompts: Annotated[Path, typer.Argument(help="A file of prompts with attributes.")],
    output: Output,
    by: Annotated[str, typer.Option(help="Who writes: URL#MODEL, or a local model.")],
    judge: Annotated[str | None, typer.Option(help="Who scores soft attributes.")] = None,
    samples: Annotated[int, typer.Option(min=2, help="Responses per prompt.")] = 4,
    min_gap: Annotated[float, typer.Option(min=0, max=1, help="Least gap of closeness.")] = 0.05,
    temperature: Temperature = 0.8,
    max_new_tokens: Tokens = 256,
    seed: Seed = 0,
) -> None:
    """Sample responses with target attributes, grade each attribute, pair by closeness."""
    from trillium.generation.interface import SamplingConfig
    from trillium.rowfiles import load_rows
    from trillium.strategies.answers import open_judge, open_participant
    from trillium.strategies.attribute_pairs import pair_by_attributes
    from trillium.strategies.attributes import AttributeRow

    rows, writer = load_rows(prompts, AttributeRow), open_participant(by)
    found = pair_by_attributes(
        rows,
        writer,
        open_judge(judge, writer),
        answers_of(output),
        sampling=SamplingConfig(
            n_samples=samples, temperature=temperature, max_new_tokens=max_new_tokens
        ),
        min_gap=min_gap,
        seed=seed,
    )
    _save(output, found.rows)
    typer.echo(
        f"{len(rows):,} prompts: {len(found.rows):,} pairs, {found.n_alike:,} without a gap; "
        f"{found.n_unreadable:,} responses without a readable score"
    )
    for kind, closeness in found.closeness.items():
        typer.echo(f"{kind}: closeness {closeness:.2f}, met by {found.met[kind]:.0%}")


def thoughts(
    prompts: Annotated[Path, typer.Argument(help="A file of prompts.")],
    output: Output,
    by: Annotated[str, typer.Option(help="Who thinks: URL#MODEL, or a local model.")],
    judge: Annotated[str, typer.Option(help="Who scores responses, and sees no thought.")],
    samples: Annotated[int, typer.Option(min=2, help="Thoughts per prompt.")] = 4,
    length_control: Annotated[
        float, typer.Option(min=0, help="Weight of length against quality; 0: none.")
    ] = 0.25,
    native: Annotated[bool, typer.Option("--native", help="The model thinks unasked.")] = False,
    temperature: Temperature = 0.8,
    max_new_tokens: Tokens = 512,
    seed: Seed = 0,
) -> None:
    """Pair thoughts by the quality of the responses after them (TPO)."""
    from trillium.generation.interface import SamplingConfig
    from trillium.rowfiles import load_rows
    from trillium.strategies.answers import open_judge, open_participant
    from trillium.strategies.prompts import PromptRow
    from trillium.strategies.thoughts import pair_by_thoughts

    rows, writer = load_rows(prompts, PromptRow), open_participant(by)
    found = pair_by_thoughts(
        rows,
        writer,
        open_judge(judge, writer) or writer,
        answers_of(output),
        sampling=SamplingConfig(
            n_samples=samples, temperature=temperature, max_new_tokens=max_new_tokens
        ),
        rho=length_control,
        is_native=native,
        seed=seed,
    )
    _save(output, found.rows)
    typer.echo(
        f"{len(rows):,} prompts: {len(found.rows):,} pairs, {found.n_alike:,} without a "
        f"difference; of {found.n_sampled:,} samples {found.n_without_thought:,} without thought "
        f"and response, {found.n_unreadable:,} without a readable score"
    )
    typer.echo(
        "train with data.tokenize.scored_turns=final_answer (thoughts are context) or all "
        "(thoughts are trained on)"
    )


def safety(
    prompts: Annotated[Path, typer.Argument(help="A file of prompts: harmful true or false.")],
    output: Output,
    by: Annotated[str, typer.Option(help="Who answers: URL#MODEL, or a local model.")],
    judge: Annotated[str | None, typer.Option(help="Who finds refusals; default: a rule.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers per prompt.")] = 2,
    held_out: Annotated[float, typer.Option(min=0, max=1, help="Share of groups apart.")] = 0.0,
    held_out_output: Annotated[
        Path | None, typer.Option(help="The file for the topics and styles kept apart.")
    ] = None,
    temperature: Temperature = 0.8,
    max_new_tokens: Tokens = 128,
    seed: Seed = 0,
) -> None:
    """Measure refusals of harmful prompts and of benign look-alikes apart; pair both kinds."""
    from trillium.errors import ConfigError
    from trillium.generation.interface import SamplingConfig
    from trillium.rowfiles import load_rows
    from trillium.strategies.answers import open_judge, open_participant
    from trillium.strategies.safety import SafetyRow, hold_out, pair_for_safety

    if bool(held_out) != (held_out_output is not None):
        raise ConfigError(
            "safety: --held-out and --held-out-output belong together; give both, or neither"
        )
    if held_out_output is not None:
        check_outputs(output, held_out_output)
    rows, writer = load_rows(prompts, SafetyRow), open_participant(by)
    apart = hold_out(rows, held_out, seed=seed)
    found = pair_for_safety(
        rows,
        writer,
        open_judge(judge, writer),
        answers_of(output),
        sampling=SamplingConfig(
            n_samples=samples, temperature=temperature, max_new_tokens=max_new_tokens
        ),
        seed=seed,
    )
    typer.echo(found.describe())
    if held_out_output is not None:
        typer.echo(f"{len(apart):,} prompts are of topics or styles held out")
        _save(held_out_output, [row for row in found.rows if row.id in apart])
    _save(output, [row for row in found.rows if row.id not in apart])


def check_outputs(output: Path, held_out_output: Path) -> None:
    """Raise ConfigError where one file would replace the other."""
    from trillium.errors import ConfigError

    if output.resolve() == held_out_output.resolve():
        raise ConfigError(f"{output}: is --output and --held-out-output; name two files")


def answers_of(output: Path) -> Path:
    """Return where answers are kept beside an output, so that a kill costs one batch."""
    return output.with_name(f"{output.stem}.answers.jsonl")


def _save(output: Path, rows: "Sequence[PairRow]") -> None:
    """Write pairs; raises BackendError when there is none."""
    from trillium.errors import BackendError
    from trillium.rowfiles import save_rows

    if not rows:
        raise BackendError(
            f"{output}: no pair was found and nothing is written; draw more --samples, ask another "
            f"model, or read what was said in {answers_of(output)}"
        )
    save_rows(output, rows)
