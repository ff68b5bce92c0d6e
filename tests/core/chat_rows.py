"""Chat templates of the families that trainers meet, and the rows and masks to test them with."""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import processors
from transformers import PreTrainedTokenizerFast
from trillium.fields import Message
from trillium.policies.tiny import tiny_tokenizer
from trillium.records import PairRow, TrajectoryRow
from trillium.tokenize import TokenizeConfig, TokenizedDataset
from trillium.trees import TokenPath

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADERS = (
    "{{ bos_token }}{% for m in messages %}<|header|>{{ m.role }}<|/header|>\n\n"
    "{{ m.content | trim }}<|turn_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|header|>assistant<|/header|>\n\n{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{{ raise_exception('no system role here') }}{% endif %}"
    "{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "<turn>{{ role }}\n{{ m.content | trim }}</turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
INSTRUCTION = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
# Shows reasoning in the last turn only and puts an empty block where there is none.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% set text = m.content.split('</think>')[-1].lstrip() %}"
    "{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip()"
    " if '</think>' in m.content else '' %}"
    "{% if loop.last %}<think>\n{{ thought }}\n</think>\n\n{% endif %}{{ text }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}"
    "({{ c.function.arguments | tojson }})</call>{% endfor %}"
    "{% if m.tool_calls and m.no_stop %}<tool_response>"
    "{% else %}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Trims what was said and writes reasoning and calls around it.
TRIMMING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{% if m.content is string %}{{ m.content | trim }}"
    "{% else %}{% for b in m.content or [] %}{{ b.text or b.thinking }}{% endfor %}{% endif %}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}</call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_STOP = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@dataclass(frozen=True)
class Family:
    template: str
    special: tuple[str, ...] = ()
    stop: str = "<|im_end|>"
    bos: str | None = None

    def tokenizer(self) -> PreTrainedTokenizerFast:
        tokenizer = tiny_tokenizer()
        tokenizer.add_tokens(list(self.special), special_tokens=True)
        tokenizer.chat_template = self.template
        if self.bos:
            tokenizer.bos_token = self.bos
            add_bos(tokenizer, self.bos)
        if self.template == INSTRUCTION:
            tokenizer.eos_token = self.stop
        return tokenizer


def add_bos(tokenizer: PreTrainedTokenizerFast, bos: str) -> None:
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.convert_tokens_to_ids(bos))]
    )


FAMILIES = {
    "chatml": Family(CHATML),
    "headers": Family(
        HEADERS, ("<|header|>", "<|/header|>", "<|turn_end|>"), "<|turn_end|>", "<|endoftext|>"
    ),
    "no_system": Family(NO_SYSTEM, ("<turn>", "</turn>"), "</turn>", "<|endoftext|>"),
    "instruction": Family(INSTRUCTION, ("</s>",), "</s>", "<|endoftext|>"),
    "thinking": Family(THINKING),
    "no_stop": Family(NO_STOP),
}
CONFIG = TokenizeConfig()
REPAIR = TokenizeConfig(on_prefix_violation="repair")


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str, **fields: object) -> Message:
    return Message("assistant", text, fields)


def chat_pair(chosen: str = "yes", rejected: str = "no", prompt: str = "Is it?") -> PairRow:
    return PairRow(
        prompt=(user(prompt),), chosen=(assistant(chosen),), rejected=(assistant(rejected),)
    )


def tool_row(**extra: object) -> TrajectoryRow:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    return TrajectoryRow(
        messages=(
            user("1+1"),
            Message("assistant", None, {"tool_calls": [call], **extra}),
            Message("tool", "2", {"name": "add"}),
            assistant("It is 2"),
        )
    )


def shown(tokenizer: PreTrainedTokenizerFast, path: TokenPath) -> str:
    """Decode a path with its scored runs in braces, the golden form of a mask."""
    text, inside = "", False
    runs: list[tuple[bool, list[int]]] = []
    for token, scored in zip(path.ids, path.scored, strict=True):
        if not runs or scored != inside:
            runs.append((scored, []))
            inside = scored
        runs[-1][1].append(token)
    for scored, run in runs:
        decoded = tokenizer.decode(run)
        text += "{" + decoded + "}" if scored else decoded
    return text


def masks(tokenizer: PreTrainedTokenizerFast, dataset: TokenizedDataset) -> list[str]:
    tree = dataset.trees[0]
    return [shown(tokenizer, tree.path(index)) for index in range(tree.n_paths)]


def scored_ids(path: TokenPath) -> list[int]:
    return [token for token, scored in zip(path.ids, path.scored, strict=True) if scored]
