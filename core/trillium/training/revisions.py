"""SRPO's further paths: each response of a pair as a revision of each (arXiv 2406.01660).

The reviser is the same model in a longer context: the prompt, a response, and an instruction to do
better. The paper trains on these and revises with the same words when it answers.
"""

from dataclasses import replace

from trillium.fields import Message, Text
from trillium.record_texts import Reply
from trillium.records import PairRow


def add_revisions(row: PairRow, instruction: str) -> PairRow:
    """Return the pair with the four further replies that SRPO scores."""
    sides = {"chosen": row.chosen, "rejected": row.rejected}
    further = {
        f"{reply}_given_{context}": Reply(
            revision_prompt(row.prompt, sides[context], instruction), sides[reply]
        )
        for context in sides
        for reply in sides
    }
    return replace(row, further={**row.further, **further})


def revision_prompt(prompt: Text, response: Text, instruction: str) -> Text:
    """Return the context in which `response` is to be revised.

    A conversation goes on with the response and a turn of the user; plain text gets both as
    paragraphs.
    """
    if isinstance(prompt, str):
        assert isinstance(response, str)
        return f"{prompt}{response}\n\n{instruction}\n\n"
    said = (Message("assistant", response),) if isinstance(response, str) else response
    return (*prompt, *said, Message("user", instruction))
