"""The model card of a run's adapter: what it is, from what, how good, and what nobody checked.

A card that the hub reads (YAML in front), made of what the run recorded and nothing else.
"""

from collections.abc import Iterable, Mapping

from trillium.deployment.check import check_adapter
from trillium.deployment.run_facts import RunFacts
from trillium.yamlfile import dump_yaml

_LIMITS = (
    "What is not in the table above was not measured: other tasks, other languages, safety, "
    "bias, truthfulness.",
    "Preference training shifts what the base does and removes nothing from it: what the base "
    "may write, this may write.",
    "Figures hold for the base named here, with its tokenizer and chat template; another base, "
    "quantisation or template was not measured.",
)


def write_card(facts: RunFacts) -> str:
    """Return the card in Markdown."""
    record, adapter = facts.record, facts.adapter
    base = record.base.name if record else adapter.base
    front: dict[str, object] = {
        "base_model": base,
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "preference-optimisation", "trillium"],
    }
    method = facts.settings.get("objective.name") or "see the settings below"
    lines = [
        "---",
        dump_yaml(front).rstrip(),
        "---",
        f"# {facts.name}",
        "",
        f"A LoRA adapter (rank {adapter.rank}, {len(adapter.layers())} layers) for `{base}`, "
        f"aligned with the objective `{method}`.",
        "",
        *_section("Base", _base(facts)),
        *_section("Training", _training(facts)),
        *_section("Data", _data(facts)),
        *_section("Evaluation", _evaluation(facts)),
        *_section("Limits", [f"- {limit}" for limit in _LIMITS]),
        *_section("Serving", _serving(facts)),
        *_section("Made with", _environment(facts)),
    ]
    return "\n".join(lines) + "\n"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _base(facts: RunFacts) -> list[str]:
    rows = {"licence": facts.base_licence()}
    if facts.record is not None:
        base = facts.record.base
        rows |= {
            "architecture": base.model_type,
            "weights in training": f"{base.dtype}, quantisation {base.quantisation}",
            "sha256 of the weights": base.weights_sha256 or "not recorded",
            "revision": base.revision or "none",
        }
    return _table(("property", "value"), rows)


def _training(facts: RunFacts) -> list[str]:
    reference = facts.settings.get("reference", "see the run's config.yaml")
    rows = {"reference": reference}
    if facts.record is not None:
        rows["examples"] = f"{facts.record.n_examples:,}"
    kept = ("objective.", "train.", "policy.lora.")
    rows |= {key: value for key, value in facts.settings.items() if key.startswith(kept)}
    rows["seed"] = str(facts.manifest.seed)
    return _table(("setting", "value"), rows)


def _data(facts: RunFacts) -> list[str]:
    if not facts.data:
        return ["The run records no data of its own."]
    return _table(("stage and input", "sha256"), {k: f"`{v}`" for k, v in facts.data.items()})


def _evaluation(facts: RunFacts) -> list[str]:
    if not facts.figures:
        return ["Nothing was evaluated."]
    return _table(("figure", "value"), {k: f"{v:,.6g}" for k, v in facts.figures.items()})


def _serving(facts: RunFacts) -> list[str]:
    found = check_adapter(facts.adapter.folder)
    marks = {"fine": "ok", "warning": "warning", "problem": "problem"}
    return [f"- {marks[each.kind]}: {each.sentence}" for each in found]


def _environment(facts: RunFacts) -> list[str]:
    environment = facts.environment
    packages = environment.get("packages")
    versions = packages if isinstance(packages, Mapping) else {}
    return _table(
        ("what", "version"),
        {
            "python": str(environment.get("python")),
            "commit": str(environment.get("git_commit") or "unknown"),
            **{str(name): str(version) for name, version in versions.items()},
        },
    )


def _table(header: tuple[str, str], rows: Mapping[str, str]) -> list[str]:
    cells = [(_cell(key), _cell(value)) for key, value in rows.items()]
    body = [f"| {key} | {value} |" for key, value in cells]
    return [f"| {header[0]} | {header[1]} |", "|---|---|", *body]


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
