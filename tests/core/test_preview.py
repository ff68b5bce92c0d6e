from rich.text import Text
from trillium.policies.tiny import tiny_tokenizer
from trillium.preview import STYLES, parts, render_tree
from trillium.trees import TokenPath, TokenTree


def styled(text: Text, style: str) -> list[str]:
    return [text.plain[span.start : span.end] for span in text.spans if span.style == style]


def test_each_part_of_a_tree_has_its_colour() -> None:
    tokenizer = tiny_tokenizer()
    prompt, call, out, end = (tuple(tokenizer(t).input_ids) for t in ("é?", "run", "2", "two"))
    whole = TokenPath(
        prompt + call + out + end,
        (False,) * len(prompt) + (True,) * 3 + (False,) + (True,) * 3,
    )
    short = TokenPath(prompt + end, (False,) * len(prompt) + (True,) * 3)
    tree = TokenTree.from_paths("a", [whole, short], {"reward": (1.0, 0.5)})

    text = render_tree(tree, tokenizer)

    assert styled(text, STYLES["context"]) == ["é?"]
    assert styled(text, STYLES["scored"]) == ["run", "two", "two"]
    assert styled(text, STYLES["masked"]) == ["2"]
    assert "-- shared, 3 tokens" in text.plain
    assert "-- path 1, 3 scored of 6 tokens, reward 0.5" in text.plain


def test_a_path_without_scored_tokens_is_all_context() -> None:
    assert parts([False, False]) == ["context", "context"]
    assert parts([False, True, False]) == ["context", "scored", "masked"]
