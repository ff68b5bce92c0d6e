"""What `trillium diagnose` prints."""

from collections.abc import Sequence

from rich.text import Text

from trillium.diagnostics.findings import Finding

_STYLES = {"alert": "bold red", "fine": "green", "unknown": "dim"}


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
