from trillium.training.journal import Journal, read_metrics


def test_rewinding_drops_later_steps_and_a_line_that_was_cut_short(tmp_path):
    journal = Journal(tmp_path)
    for step in range(1, 6):
        journal.append(step, {"loss": 0.5}, {"seconds": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    journal.rewind(3)
    journal.append(4, {"loss": 0.25}, {"seconds": 2.0})
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert read_metrics(tmp_path)[-1]["loss"] == 0.25
    assert (tmp_path / "timing.jsonl").read_text().count("\n") == 4


def test_a_folder_without_a_journal_has_no_metrics(tmp_path):
    Journal(tmp_path).rewind(0)
    assert read_metrics(tmp_path) == []


def test_a_record_is_complete_up_to_its_first_missing_step_or_evaluation(tmp_path):
    journal = Journal(tmp_path)
    assert journal.last_complete_step() == 0
    for step in (1, 2, 3, 4, 6):
        journal.append(step, {"loss": 0.5}, {"seconds": 1.0})
    assert journal.last_complete_step() == 4
    journal.append_evaluation(2, {"eval_loss": 0.5})
    assert journal.last_complete_step(eval_steps=2) == 3
    journal.append_evaluation(4, {"eval_loss": 0.5})
    assert journal.last_complete_step(eval_steps=2) == 4
    with (tmp_path / "metrics.jsonl").open("r+b") as file:
        file.write(b"\xff\xff")
    assert journal.last_complete_step() == 0
