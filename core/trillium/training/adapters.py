"""Save an adapter so that the same weights give the same bytes."""

import json
from pathlib import Path

from peft import PeftModel

from trillium.files import write_atomically


def save_adapter(policy: PeftModel, folder: Path) -> None:
    """Write the active adapter alone, in PEFT's format, with its configuration in a fixed order."""
    policy.save_pretrained(
        str(folder), selected_adapters=[policy.active_adapter], save_embedding_layers=False
    )
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # PEFT writes sets (target_modules) in the order of this process's hashes.
    for name, value in config.items():
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            config[name] = sorted(value)
    write_atomically(path, json.dumps(config, indent=2, sort_keys=True) + "\n")
