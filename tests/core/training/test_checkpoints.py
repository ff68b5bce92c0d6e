import errno

import pytest
from trillium.files import is_disk_full
from trillium.training.checkpoints import (
    SEAL,
    newest_checkpoint,
    prune_checkpoints,
    seal_checkpoint,
)


def make_checkpoint(output, step, identity="run"):
    folder = output / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "adapter.bin").write_bytes(bytes([step]) * 100)
    (folder / "optimizer.pt").write_bytes(bytes([step + 1]) * 50)
    if identity:
        seal_checkpoint(folder, identity)
    return folder


def test_the_newest_intact_checkpoint_is_used_without_a_word(tmp_path, caplog):
    make_checkpoint(tmp_path, 5)
    newest = make_checkpoint(tmp_path, 10)
    assert newest_checkpoint(tmp_path, "run", last_recorded=10) == newest
    assert caplog.messages == []


def test_a_truncated_file_falls_back_to_the_previous_checkpoint_in_one_sentence(tmp_path, caplog):
    previous = make_checkpoint(tmp_path, 5)
    damaged = make_checkpoint(tmp_path, 10)
    (damaged / "optimizer.pt").write_bytes(b"x" * 7)
    assert newest_checkpoint(tmp_path, "run", last_recorded=10) == previous
    assert caplog.messages == [
        f"{damaged}: optimizer.pt has 7 bytes (50 were written); continuing from checkpoint-5"
    ]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: (f / "adapter.bin").write_bytes(b"\0" * 100), "adapter.bin has changed"),
        (lambda f: (f / "adapter.bin").unlink(), "adapter.bin is missing"),
        (lambda f: (f / SEAL).unlink(), "was interrupted while it was written"),
        (lambda f: (f / SEAL).write_text("{"), "sealed.json is damaged"),
        (lambda f: seal_checkpoint(f, "other"), "belongs to another configuration"),
    ],
)
def test_any_damage_is_found_and_named(tmp_path, caplog, damage, sentence):
    damage(make_checkpoint(tmp_path, 10))
    assert newest_checkpoint(tmp_path, "run", last_recorded=10) is None
    assert len(caplog.messages) == 1
    assert sentence in caplog.messages[0]
    assert caplog.messages[0].endswith("starting from the beginning")


def test_a_checkpoint_whose_steps_are_not_all_recorded_is_passed_over(tmp_path, caplog):
    previous = make_checkpoint(tmp_path, 5)
    newest = make_checkpoint(tmp_path, 10)
    assert newest_checkpoint(tmp_path, "run", last_recorded=9) == previous
    assert caplog.messages == [
        f"{newest}: the record of its steps is complete only up to step 9; "
        "continuing from checkpoint-5"
    ]


def test_pruning_keeps_the_newest_sealed_checkpoints(tmp_path):
    make_checkpoint(tmp_path, 5)
    make_checkpoint(tmp_path, 10, identity="")
    make_checkpoint(tmp_path, 15)
    make_checkpoint(tmp_path, 20)
    make_checkpoint(tmp_path, 100, identity="")
    prune_checkpoints(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-100",
        "checkpoint-15",
        "checkpoint-20",
    ]


def test_a_full_disk_is_recognised_also_behind_a_library_error():
    def wrapped():
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("PytorchStreamWriter failed") from error

    with pytest.raises(RuntimeError) as caught:
        wrapped()
    assert is_disk_full(caught.value)
    assert is_disk_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert is_disk_full(RuntimeError("[enforce fail] . unexpected pos 64 vs 0"))
    assert not is_disk_full(OSError(errno.EACCES, "Permission denied"))
