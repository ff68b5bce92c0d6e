"""What a run folder says about the adapter it made, for its card and its bill of materials."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trillium.compare import flatten
from trillium.deployment.adapter_files import AdapterFiles, read_adapter
from trillium.deployment.base_files import find_base
from trillium.deployment.locate import find_adapter
from trillium.deployment.provenance import Provenance, read_provenance
from trillium.errors import BackendError, ConfigError, DataError
from trillium.manifest import Manifest, read_manifest
from trillium.yamlfile import read_yaml

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NO_DATA = {"config", "base", "agent", "tokens"}


@dataclass(frozen=True)
class RunFacts:
    """Hold a run's manifest, settings and environment, and its adapter with its record."""

    folder: Path
    manifest: Manifest
    settings: Mapping[str, str]
    environment: Mapping[str, object]
    adapter: AdapterFiles
    record: Provenance | None

    @property
    def name(self) -> str:
        """Return the name of the run's folder."""
        return self.folder.resolve().name

    @property
    def data(self) -> dict[str, str]:
        """Return the sha256 of every input that is data, by stage and name."""
        made = {record.output_hash for record in self.manifest.current.values()}
        return {
            f"{stage}: {name}": value
            for stage, record in self.manifest.current.items()
            for name, value in record.inputs.items()
            if _SHA256.fullmatch(value) and value not in made and name not in _NO_DATA
        }

    @property
    def figures(self) -> dict[str, float]:
        """Return the figures that stages counted, and the last evaluation on held-out rows."""
        found: dict[str, float] = {
            f"{stage}: {name}": value
            for stage, record in self.manifest.current.items()
            for name, value in record.counts.items()
        }
        path = self.folder / "evaluations.jsonl"
        if path.is_file():
            *_, last = path.read_text(encoding="utf-8").splitlines()
            found |= {f"held out: {name}": value for name, value in json.loads(last).items()}
        return found

    def base_licence(self) -> str:
        """Return the licence of the base, or that its files state none."""
        try:
            base = find_base(self.record.base.name if self.record else self.adapter.base)
        except (ConfigError, BackendError) as error:
            return f"unknown: {error}"
        if base.licence is not None:
            return base.licence
        card = base.folder / "README.md"
        text = card.read_text(encoding="utf-8") if card.is_file() else ""
        found = re.search(r"\A---\n(?:.*\n)*?license: *(\S+)", text)
        return found[1] if found else "not stated by its files; ask its publisher before sharing"


def read_run(folder: Path) -> RunFacts:
    """Read a finished run; raises DataError or ConfigError when it is none or made no adapter."""
    manifest = read_manifest(folder)
    path = folder / "environment.json"
    try:
        environment = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); run the same command again") from None
    adapter = find_adapter(folder)
    return RunFacts(
        folder,
        manifest,
        {key: value.strip('"') for key, value in flatten(read_yaml(folder / "config.yaml").values)},
        environment,
        read_adapter(adapter),
        read_provenance(adapter),
    )
