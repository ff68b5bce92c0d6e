"""`trillium deploy`: check, register and render adapters; merge, export and describe them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(no_args_is_help=True, help="From an adapter to what serves it.")

_Adapter = Annotated[Path, typer.Argument(help="An adapter folder, or the run that trained it.")]
_Base = Annotated[str | None, typer.Option(help="The base, where the adapter's own name moved.")]
_Registry = Annotated[Path, typer.Option(help="The file of what is served.")]
_MARKS = {"fine": "ok", "warning": "warning", "problem": "PROBLEM"}


@app.command()
def check(
    adapter: _Adapter,
    base: _Base = None,
    revision: Annotated[str | None, typer.Option(help="Of a base on the hub.")] = None,
) -> None:
    """Say whether servers will take ADAPTER; exit code 1 where they will not."""
    from trillium.deployment.locate import find_adapter

    folder = find_adapter(adapter)
    from trillium.deployment.check import check_adapter

    found = check_adapter(folder, base=base, revision=revision)
    for finding in found:
        typer.echo(f"{_MARKS[finding.kind]:8} {finding.sentence}")
    if any(finding.kind == "problem" for finding in found):
        raise typer.Exit(1)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What callers will ask for.")],
    adapter: _Adapter,
    registry: _Registry = Path("deploy/adapters.yaml"),
    base: Annotated[str | None, typer.Option(help="Hub id or folder; for a new file.")] = None,
    base_name: Annotated[str | None, typer.Option(help="What callers call the base.")] = None,
    revision: Annotated[str | None, typer.Option(help="Commit of the base on the hub.")] = None,
) -> None:
    """Write ADAPTER with its hash and rank into adapters.yaml, or replace the one called NAME."""
    from trillium.deployment.locate import find_adapter
    from trillium.deployment.registry import register

    options = {"name": base_name, "source": base, "revision": revision}
    given = {key: value for key, value in options.items() if value is not None}
    written = register(registry, name, find_adapter(adapter), base=given)
    names = ", ".join(each.name for each in written.adapters)
    typer.echo(f"{registry}: {names} on {written.base.source}")


@app.command()
def render(
    registry: _Registry = Path("deploy/adapters.yaml"),
    output: Annotated[Path, typer.Option(help="Where to write.")] = Path("deploy/rendered"),
) -> None:
    """Write the files of vLLM, Compose, Kubernetes, KServe, Ray Serve and Ollama."""
    from trillium.deployment.registry import read_registry, verify_registry
    from trillium.deployment.render import render as render_files
    from trillium.deployment.render import write

    known = read_registry(registry)
    verify_registry(known, registry.parent)
    rendered = render_files(known, registry.parent, output)
    write(rendered, output)
    for path in rendered.files:
        typer.echo(str(output / path))
    for reason in rendered.left_out:
        typer.echo(f"left out {reason}", err=True)


@app.command()
def merge(
    adapter: _Adapter,
    output: Annotated[Path, typer.Argument(help="A new folder for the merged model.")],
    base: _Base = None,
    trained_in: Annotated[
        Literal["bfloat16", "float32"] | None,
        typer.Option(help="Of the base in training, where the adapter does not record it."),
    ] = None,
    quantisation: Annotated[Literal["none", "nf4"] | None, typer.Option(help="Likewise.")] = None,
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="Round the sum; half the size, small updates lost.")
    ] = False,
) -> None:
    """Write base plus ADAPTER as one model, on the weights that training saw."""
    from trillium.deployment.locate import find_adapter

    folder = find_adapter(adapter)
    from trillium.deployment.merge import merge_adapter

    sentence = merge_adapter(
        folder,
        output,
        base=base,
        trained_in=trained_in,
        quantisation=quantisation,
        bfloat16=bfloat16,
    )
    typer.echo(f"{output}: {sentence}")


@app.command()
def export(
    source: Annotated[Path, typer.Argument(help="An adapter, a run, or a model folder.")],
    gguf: Annotated[Path, typer.Option(help="The GGUF file to write.")],
    base: _Base = None,
    kind: Annotated[
        Literal["f32", "f16", "bf16", "q8_0"], typer.Option(help="Of a model's matrices.")
    ] = "f16",
) -> None:
    """Write an adapter, or a whole model (see merge), as GGUF for llama.cpp and Ollama."""
    from trillium.deployment.locate import find_adapter

    is_model = (source / "config.json").is_file() and not (source / "adapter_config.json").is_file()
    folder = source if is_model else find_adapter(source)
    from trillium.deployment.gguf_export import export_adapter, export_model

    if is_model:
        export_model(folder, gguf, kind=kind)
    else:
        export_adapter(folder, gguf, base=base)
    typer.echo(f"{gguf}: {'model' if is_model else 'adapter'}, {gguf.stat().st_size:,} bytes")


@app.command()
def card(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    output: Annotated[
        Path | None, typer.Option(help="Where to write; default: the run's folder.")
    ] = None,
) -> None:
    """Write MODEL_CARD.md and sbom.cdx.json (CycloneDX) of a run's adapter."""
    from trillium.deployment.run_facts import read_run

    facts = read_run(run)
    from trillium.deployment.card import write_card
    from trillium.deployment.sbom import write_sbom
    from trillium.files import write_atomically

    folder = output or run
    written = {"MODEL_CARD.md": write_card(facts), "sbom.cdx.json": write_sbom(facts)}
    for name, content in written.items():
        write_atomically(folder / name, content)
        typer.echo(str(folder / name))
