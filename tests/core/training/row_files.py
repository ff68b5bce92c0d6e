"""Files with every kind of row that a run can train on, in the formats users have them in."""

import json
import random
from pathlib import Path

WORDS = ["red", "green", "blue", "sun", "moon", "star", "cat", "dog"]


def write_row_files(folder: Path) -> None:
    """Write pairs and labelled rows in TRL's formats, and one file for each other kind of row."""
    rng = random.Random(0)

    def say(n_words):
        return " ".join(rng.choices(WORDS, k=n_words))

    def message(role, text):
        return [{"role": role, "content": text}]

    pairs = [
        {
            "prompt": message("user", say(4)),
            "chosen": message("assistant", say(3)),
            "rejected": message("assistant", say(5)),
        }
        for _ in range(12)
    ]
    rows = [
        {"prompt": say(4), "completion": say(3 + index % 3), "label": index % 2 == 0}
        for index in range(12)
    ]
    for name, records in (("pairs", pairs), ("held_out", pairs[:3]), ("rows", rows)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    rated = [{"prompt": "p", "completion": "c", "label": label} for label in (1, 3)]
    long = [{"prompt": "p" * 3000, "chosen": "c", "rejected": "r"}]
    same = [{"prompt": f"p{i}", "completion": "c", "label": i % 2} for i in range(4)]
    for name, records in (("ratings", rated), ("long", long), ("same", same)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    _write_further_rows(folder, say, message)


def _write_further_rows(folder, say, message):
    """Write one file for each kind of row that is neither a pair alone nor a labelled response."""
    texts = ("target", "gold", "rationale", "near_scope", "out_of_scope")
    numbers = {
        "p_win": 0.9,
        "reference_is_chosen": 1,
        "degree_label": 2,
        "margin_chosen": 0.1,
        "margin_rejected": 0.0,
        "p_win_chosen": 0.7,
        "p_win_rejected": 0.2,
        "chosen_score": 1.5,
        "rejected_score": -0.5,
    }
    accompanied = [
        {
            "prompt": message("user", say(4)),
            "chosen": message("assistant", say(3)),
            "rejected": message("assistant", say(5)),
            "rejected_prompt": message("user", say(3)),
            **{name: message("assistant", say(3)) for name in texts},
            "near_scope_prompt": message("user", say(2)),
            "out_of_scope_prompt": message("user", say(2)),
            **numbers,
        }
        for _ in range(8)
    ]
    plain = [
        {
            "prompt": say(3) + " ",
            "chosen": say(3),
            "rejected": say(4),
            "rejected_prompt": f"{index} {say(2)} ",
            "gold": say(2),
            "gold_prompt": f"{index}? ",
            "p_win": 0.8,
        }
        for index in range(8)
    ]
    ranked = [
        {
            "prompt": say(4),
            "completions": [say(2 + place) for place in range(2 + index % 3)],
            "rewards": [float(place) for place in range(2 + index % 3)],
            "ranks": [2 + index % 3 - place for place in range(2 + index % 3)],
        }
        for index in range(8)
    ]
    searched = [
        {
            "prompt": message("user", say(3)),
            "steps": [
                {"text": say(2) + "\n", "parent": -1},
                {"text": say(2), "parent": 0},
                {"text": say(3), "parent": 0},
                {"text": say(4), "parent": -1},
            ],
            "labels": {"label": [0.9, 0.4, 0.1]},
        }
        for _ in range(8)
    ]
    used = [
        {
            "messages": [
                *message("user", say(3)),
                *message("assistant", say(2)),
                *message("user", say(2)),
                *message("assistant", say(2)),
            ],
            "reward": index % 2,
        }
        for index in range(8)
    ]
    supervised = [
        {"prompt": say(3), "completion": say(3), "aligned_mean_logps": -1.5} for _ in range(8)
    ]
    files = {
        "accompanied": accompanied,
        "plain": plain,
        "ranked": ranked,
        "searched": searched,
        "used": used,
        "supervised": supervised,
        "unlabelled": [{**row, "labels": [2.0] * len(row["rewards"])} for row in ranked],
        "certain": [{**row, "p_win_chosen": 60} for row in accompanied],
        "without_source": [
            {**row, "labels": [0.5] * len(row["ranks"]), "rewards": None, "ranks": None}
            for row in ranked
        ],
        "ranked_from_0": [{**row, "ranks": [r - 1 for r in row["ranks"]]} for row in ranked],
        "verdictless": [{"messages": row["messages"]} for row in used],
    }
    for name, records in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
