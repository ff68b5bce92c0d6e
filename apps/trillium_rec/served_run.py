"""A finished run as something to recommend with: its data, its model, its catalogue of today."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trillium.config import load_config
from trillium.errors import DataError
from trillium.manifest import read_manifest

from trillium_rec.config import Device, RecConfig
from trillium_rec.live_catalogue import LiveCatalogue, open_catalogue
from trillium_rec.preparation import RunData, prepare
from trillium_rec.semantic_ids import load_ids

if TYPE_CHECKING:
    from trillium_rec.ranking import Recommender
    from trillium_rec.recommenders import Weights


@dataclass(frozen=True)
class ServedRun:
    """Hold a run folder, its configuration and its log; `model` when it is not the run's own."""

    folder: Path
    config: RecConfig
    data: RunData
    model: Path | None = None

    @classmethod
    def open(
        cls, folder: Path, model: Path | None = None, device: Device | None = None
    ) -> "ServedRun":
        """Read a run folder; raises DataError when it is none, or cannot be read again.

        `model` is the folder of an aligned model of the same run; `device` replaces the run's own.
        """
        path = folder / "config.yaml"
        if not path.exists() or not (folder / "ids").is_dir():
            raise DataError(
                f"{folder}: is no run of the recommender (needs config.yaml and ids); give the "
                "output folder of `trillium rec run`"
            )
        config = load_config(RecConfig, path)
        if device is not None:
            config = config.model_copy(update={"device": device})
        return cls(folder, config, prepare(config), model)

    def catalogue(self) -> LiveCatalogue:
        """Return the revision in force; raises DataError when the log names other items now."""
        known = self.data.positive.catalogue
        trained = load_ids(self.folder / "ids")
        # A log may name items that were added to the catalogue since, and lose none.
        if known.ids[: trained.n_items] == trained.items:
            live = open_catalogue(self.folder, known.titles)
            if live.ids.items[: known.n_items] == known.ids:
                return live
        raise DataError(
            f"{self.folder}: the log has other items now than when the run was trained; give the "
            "same log, or run again"
        )

    def recommender(self, live: LiveCatalogue) -> "Recommender":
        """Return the best recommender of the run for a catalogue: the fused one, or the codes.

        An aligned model recommends by its codes: the weights of the fusion are of another model.
        Raises DataError when the run has not got that far, or the model is not of these ids.
        """
        import torch

        from trillium_rec.baselines import ItemToItem
        from trillium_rec.modelling import load_model
        from trillium_rec.models.lazy import LazyRecommender
        from trillium_rec.recommenders import CodeBeams, Fused
        from trillium_rec.trie import Trie

        folder = self.model or self.folder / "model"
        if not (folder / "config.json").exists():
            raise DataError(f"{folder}: holds no model; let `trillium rec run` finish")
        model = load_model(self.config, folder, live.ids)
        trie = Trie.build(live.ids).to(model.device)
        width = self.config.evaluate.width
        codes = CodeBeams(f"{self.config.model.name}, codes", model, trie, width)
        if not isinstance(model, LazyRecommender):
            model.set_catalogue(live.ids)
            return codes
        has_content = model.config.n_content > 0 and live.space is not None
        content = torch.from_numpy(live.space.vectors) if has_content and live.space else None
        model.set_catalogue(live.ids, content)
        if self.model is not None:
            return codes
        with torch.inference_mode():
            vectors = model.item_vectors()
        counts = ItemToItem(self.data.split.train, n_items=live.ids.n_items)
        return Fused("lazy, fused", model, trie, counts, self._weights(), width, vectors=vectors)

    def _weights(self) -> "Weights":
        from trillium_rec.recommenders import Weights

        path = self.folder / "weights.json"
        if not path.exists():
            raise DataError(f"{path}: is not there yet; let `trillium rec run` finish")
        stages = read_manifest(self.folder).current
        fuse, train = stages.get("fuse"), stages.get("train")
        if fuse is None or train is None or fuse.inputs.get("model") != train.output_hash:
            raise DataError(
                f"{path}: belongs to another model than the one beside it, which was trained "
                "since; let `trillium rec run` finish"
            )
        return Weights(**json.loads(path.read_text()))
