"""What a run would do: problems and tokens counted, one tree shown in colour, nothing started."""

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.text import Text
from trillium.preview import render_tree
from trillium.progress import format_duration
from trillium.trees import TokenTree

from trillium_math.agent.dialogue import Dialogue
from trillium_math.agent.tool import PythonTool
from trillium_math.config import MathConfig
from trillium_math.demonstrations import demonstrate
from trillium_math.estimate import plan_work
from trillium_math.grading import Grader
from trillium_math.models import Models
from trillium_math.preparation import RunProblems, prepare_problems
from trillium_math.problems import Problem
from trillium_math.supervised_config import check_trl


def preview(config: MathConfig) -> Iterator[Text]:
    """Yield what `--dry-run` prints; raises what the run itself would raise for bad input."""
    problems = prepare_problems(config)
    if config.warm_up is not None:
        check_trl("warm up")
    yield Text("\n".join(_describe(problems)))
    models = Models(config.policy, seed=config.seed, max_rows=config.max_rows)
    models.check_length(config.agent.max_tokens)
    dialogue = Dialogue(models.tokenizer, config.agent)
    with config.agent.tool.open() as backend, Grader() as grader:
        yield Text(
            f"sandbox: isolation level {backend.level}; tool output goes as a turn of the "
            f"{dialogue.tool_role}"
        )
        tool = PythonTool(backend, config.agent.tool)
        trees = list(_example(problems, dialogue, tool, grader, config))
    for work in plan_work(config, problems):
        yield Text(f"{work.stage}: about {work.tokens:,} tokens, {format_duration(work.seconds)}")
    total = format_duration(sum(work.seconds for work in plan_work(config, problems)))
    yield Text(f"about {total} on two idle cores with a model of 135 M parameters; nothing started")
    for tree in trees:
        yield render_tree(tree, models.tokenizer)


def _describe(problems: RunProblems) -> Iterator[str]:
    for name, found in (
        ("demonstrated", problems.warm_up),
        ("training", problems.train),
        ("held out", problems.held_out),
    ):
        families = Counter(problem.family or "without a family" for problem in found)
        listed = ", ".join(f"{count} {family}" for family, count in families.items())
        yield f"{name}: {len(found)} problems ({listed or 'none'})"
    if problems.n_repeated:
        yield f"left out of training: {problems.n_repeated}, because they repeat held-out questions"


def _example(
    problems: RunProblems,
    dialogue: Dialogue,
    tool: PythonTool,
    grader: Grader,
    config: MathConfig,
) -> Iterator[TokenTree]:
    """Yield a demonstration as training would see it, where a problem has a solution."""
    candidates: Sequence[Problem] = problems.warm_up or problems.train
    solved = [problem for problem in candidates if problem.solution][:1]
    if solved:
        made = demonstrate(solved, dialogue, tool, grader, max_tokens=config.agent.max_tokens)
        yield made.trajectories[0].tree
