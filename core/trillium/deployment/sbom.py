"""The bill of materials of a run, in CycloneDX 1.6 JSON: base, data, code and packages.

Source: ECMA-424. Versions are those that the run recorded; packages that it did not record are
listed as they are installed now, and say so. Same run, same environment, same bytes.
"""

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement

from trillium.deployment.run_facts import RunFacts

Json = dict[str, object]
_ROOT = "trillium"


def write_sbom(facts: RunFacts) -> str:
    """Return the bill of materials."""
    packages = facts.environment.get("packages")
    known = packages if isinstance(packages, Mapping) else {}
    recorded = {str(name): str(version) for name, version in known.items()}
    installed = dict(_installed())
    libraries = [_library(name, recorded, installed) for name in sorted({*recorded, *installed})]
    data = [_data(name, sha256) for name, sha256 in facts.data.items()]
    base = _base(facts)
    model: Json = {
        "type": "machine-learning-model",
        "bom-ref": "adapter",
        "name": facts.name,
        "hashes": [_hash(facts.adapter.sha256())],
    }
    components = [base, *data, *libraries]
    content: Json = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": model,
            "properties": [
                _property("git_commit", str(facts.environment.get("git_commit"))),
                _property("python", str(facts.environment.get("python"))),
            ],
        },
        "components": components,
        "dependencies": [
            {"ref": "adapter", "dependsOn": [str(each["bom-ref"]) for each in components]}
        ],
    }
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))
    return json.dumps({**content, "serialNumber": f"urn:uuid:{number}"}, indent=2) + "\n"


def _base(facts: RunFacts) -> Json:
    record = facts.record
    name = record.base.name if record else facts.adapter.base
    sha256 = record.base.weights_sha256 if record else None
    return {
        "type": "machine-learning-model",
        "bom-ref": "base",
        "name": name,
        "licenses": [{"license": {"name": facts.base_licence()}}],
        **({"properties": [_property("weights_sha256", sha256)]} if sha256 else {}),
    }


def _data(name: str, sha256: str) -> Json:
    return {
        "type": "data",
        "bom-ref": f"data/{name}",
        "name": name,
        "hashes": [_hash(sha256)],
    }


def _library(name: str, recorded: Mapping[str, str], installed: Mapping[str, str]) -> Json:
    version = recorded.get(name) or installed[name]
    library: Json = {
        "type": "library",
        "bom-ref": f"pkg:pypi/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
        "properties": [
            _property("version", "recorded by the run" if name in recorded else "installed now")
        ],
    }
    if installed.get(name) == version:
        facts = metadata.metadata(name)
        if "License-Expression" in facts:
            library["licenses"] = [{"expression": facts["License-Expression"]}]
    return library


def _installed() -> Iterator[tuple[str, str]]:
    """Yield trillium's packages and theirs, as far as they are installed; extras do not count."""
    seen: set[str] = set()
    waiting = [_ROOT]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        yield name, found.version
        waiting += [needed for needed in _needs(found) if needed not in seen]


def _needs(found: metadata.Distribution) -> list[str]:
    names = []
    for line in found.requires or []:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            names.append(re.sub(r"[-_.]+", "-", requirement.name).lower())
    return names


def _hash(sha256: str) -> Json:
    return {"alg": "SHA-256", "content": sha256}


def _property(name: str, value: str) -> Json:
    return {"name": f"trillium:{name}", "value": value}
