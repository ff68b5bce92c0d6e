"""The stages that turn an exploration into pairs: right against wrong, and fast against slow."""

from trillium.files import hash_json
from trillium.runs import hash_config

from trillium_code.efficiency import (
    METER,
    EfficiencyConfig,
    build_fast_pair,
    measure_stage,
    plan_race,
)
from trillium_code.journey import Explored, Journey, Paired, Place
from trillium_code.models import Models
from trillium_code.pair_counts import count_pairs
from trillium_code.pairs import RankConfig, Ranking, build_pairs
from trillium_code.prompts import joint_prompts
from trillium_code.records import CodePair, read_records, write_records


def pair(
    journey: Journey, explored: Explored, models: Models, rank: RankConfig, place: Place
) -> Paired:
    """Choose pairs of a right and a wrong program."""
    config, tasks = journey.config, journey.tasks.train
    inputs = {"matrices": explored.matrices_hash, "programs": explored.programs_hash}
    inputs["rank"] = hash_config(rank)
    if rank.scorer in ("random", "dstc"):
        inputs |= {"seed": str(config.seed), "prompt": config.prompt.asked_hash}
    stage = journey.stage(f"pair{place.tag}", inputs)
    files = [f"{place.folder}{name}" for name in ("pairs.jsonl", "rankings.jsonl")]
    if stage.is_due:
        joint = None
        if rank.scorer == "dstc":
            joint = joint_prompts(tasks, models.tokenizer, config.prompt)
        rankings, pairs = [], []
        for place_, task in enumerate(tasks):
            ranking, chosen = build_pairs(
                explored.programs[place_],
                explored.matrices[place_],
                task.entry_point,
                rank,
                seed=config.seed,
                joint=joint[place_] if joint else None,
            )
            rankings.append(ranking)
            pairs += chosen
        write_records(stage.work / files[0], pairs)
        write_records(stage.work / files[1], rankings)
        stage.finish(files, count_pairs(rankings, pairs))
    return Paired(
        read_records(stage.path(files[1]), Ranking),
        read_records(stage.path(files[0]), CodePair),
        stage.record.outputs[files[0]],
    )


def pair_fast(
    journey: Journey,
    explored: Explored,
    paired: Paired,
    efficiency: EfficiencyConfig,
    place: Place,
) -> Paired:
    """Add pairs of a fast and a slow program, both right by the credible tests."""
    tasks, sandbox = journey.tasks.train, journey.config.sandbox
    settings = {"efficiency": hash_config(efficiency), "pairs": paired.hash, **METER}
    measured = journey.stage(
        f"measure{place.tag}",
        {**settings, "matrices": explored.matrices_hash, "sandbox": hash_config(sandbox)},
    )
    rows = zip(explored.programs, explored.matrices, paired.rankings, tasks, strict=True)
    found = [
        plan_race(own, matrix, ranking, task.entry_point, efficiency)
        for own, matrix, ranking, task in rows
    ]
    races = [race for race in found if race is not None]
    output = f"{place.folder}meters.jsonl"
    meters = measure_stage(measured, output, races, efficiency, sandbox)
    stage = journey.stage(f"pair_fast{place.tag}", {**settings, "meters": measured.hash})
    output = f"{place.folder}pairs_fast.jsonl"
    if stage.is_due:
        own_of = {own.task_id: own for own in explored.programs}
        matrix_of = {matrix.task_id: matrix for matrix in explored.matrices}
        fast = [
            build_fast_pair(own_of[one.task_id], matrix_of[one.task_id], one, efficiency)
            for one in meters
        ]
        write_records(stage.work / output, [pair for pair in fast if pair is not None])
        counts = {"measured_tasks": len(meters), "pairs": sum(p is not None for p in fast)}
        stage.finish([output], counts)
    pairs = [*paired.pairs, *read_records(stage.path(output), CodePair)]
    return Paired(paired.rankings, pairs, hash_json([paired.hash, stage.hash]))
