"""What `trillium diagnose` reads from its command line, and what it prints."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError
from rich.text import Text

from trillium.diagnostics.ches import check_share
from trillium.diagnostics.diagnose import DiagnoseConfig
from trillium.diagnostics.findings import Finding
from trillium.errors import ConfigError

_STYLES = {"alert": "bold red", "fine": "green", "unknown": "dim"}


def resolve(
    target: Path, output: Path | None, share: float | None, options: Mapping[str, object]
) -> tuple[DiagnoseConfig, Path]:
    """Return the configuration and the output folder; raises ConfigError for options out of range.

    A filter that saw only some of the pairs would drop the others unseen, so the two exclude one
    another.
    """
    if share is not None:
        check_share(share)
        if options.get("n_pairs") is not None:
            raise ConfigError(
                "--filter-ches needs every pair and --n-pairs leaves some out; drop --n-pairs"
            )
    try:
        config = DiagnoseConfig.model_validate({"target": target, **options})
    except ValidationError as error:
        first = error.errors()[0]
        name = "--" + str(first["loc"][0]).replace("_", "-")
        raise ConfigError(f"{name} {first['input']}: {first['msg'].lower()}; correct it") from None
    beside = target / "diagnosis" if target.is_dir() else target.with_suffix(".diagnosis")
    return config, output or beside


def render(findings: Sequence[Finding]) -> Text:
    """Return one line per figure, and the advice under those past their threshold."""
    text = Text()
    for finding in findings:
        text.append(f"{finding.state:8}", style=_STYLES[finding.state])
        value = "n/a" if finding.state == "unknown" else f"{finding.value:.4g}"
        text.append(f"{finding.topic}: {value}  {finding.figure} ({finding.threshold})\n")
        if finding.state != "fine":
            text.append(f"{'':8}{finding.advice} [{finding.source}]\n", style="dim")
    return text
