import pytest
from trillium.errors import ConfigError, DataError
from trillium_rec.cli import app
from typer.testing import CliRunner


@pytest.fixture
def call(monkeypatch):
    """Return what a command prints on a wide terminal; its exceptions come through."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False).stdout

    return run


def test_check_says_what_is_in_a_log_and_what_was_left_out(call, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        "user_id,item_id,timestamp,like\na,x,1,0\na,y,2,0\na,z,9999,0\na,z,9999,0\nb,x,1,0\n"
        "c,x,1,0\nc,y,2,0\nc,x,3,0\nd,x,1,0\nd,y,2,0\nd,x,3,0\nd,y,4,0\n"
    )
    source = f"data.source={{name: table, path: {path}, feedback: [like]}}"
    shown = call("check", "tiny", source, "data.positive=[]", "sessions={by: gap}")
    assert "duplicate events: 1" in shown
    assert "users with one event: 1" in shown
    assert "feedback like: mean 0, 0 to 0; constant, no reward" in shown
    assert "judged users: 3" in shown
    assert "validation targets in history: 1" in shown
    assert "test targets in history: 2" in shown
    assert "sessions: 4, 100.0% good" in shown


def test_ids_are_fitted_and_described(call, tmp_path):
    shown = call("ids", "tiny", "--output", tmp_path / "run")
    assert "level 1: 100% of 16 codes in use" in shown
    assert "12 to 13 items per code" in shown
    assert "collisions 0" in shown
    assert (tmp_path / "run" / "ids" / "ids.json").exists()


def test_a_constant_reward_column_and_a_missing_part_stop_a_run_before_anything_is_trained(
    call, tmp_path
):
    path = tmp_path / "log.csv"
    rows = [f"{user},{item},{item},1,0" for user in "abcd" for item in range(5)]
    path.write_text("\n".join(["user_id,item_id,timestamp,view,like", *rows]) + "\n")
    given = ["tiny", "--output", tmp_path / "run", "data.positive=[]", "sessions={by: gap}"]
    given += [f"data.source={{name: table, path: {path}, feedback: [view, like]}}"]
    with pytest.raises(DataError, match="feedback like: is 0 in all 20 events"):
        call("run", *given, "reward.heads=[{column: like}]")
    with pytest.raises(DataError, match="feedback share: is no column of the log"):
        call("run", *given, "reward.heads=[{column: share}]")
    with pytest.raises(ConfigError, match=r"reward is missing \(alignment needs sessions, reward"):
        call("run", *given, "reward=null")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["align.objective={name: kto}"], "align: objective kto needs the shape single"),
        (["ids.path=ready.index.json"], "align: ids.path = ready.index.json gives no item vectors"),
        (["align.n_groups=3"], "align: 8 beams in 3 groups"),
        (["align.objective=null", "align.imitates_log=false"], "leave nothing to learn"),
        (["align.selection.n_losers=8"], "align: 7 of 8 sessions are below the winner"),
        (["align.selection={winner: 0.2, n_losers: 2}"], "align: 1 of 8 sessions are below"),
        (["align.selection.n_losers=2"], "n_losers = 2 is above 1 .objective dpo compares the win"),
        (["align.selection.n_losers=2", "align.objective={name: imitate}"], "objective imitate"),
        (["align.n_session=201"], r"align\.n_session = 201 is above the 200 items of the log"),
        (["align.n_session=6", "model={name: onerec}"], "align: n_session = 6 is above"),
        (["align={n_groups: 24, n_beams: 24}"], "align: n_groups = 24 is above ids.codebook_size"),
        (["align={n_groups: 32, n_beams: 32}"], "align: n_groups = 32 is above ids.codebook_size"),
        (["model.n_heads=3"], "model: d_model = 32 is no multiple of n_heads = 3"),
        (["model.n_experts=1"], "model: n_active = 2 is above n_experts = 1"),
        (["model={name: onerec, n_experts: 1}"], "model: n_active = 2 is above n_experts = 1"),
        (["reward.n_heads=3"], "reward: d_model = 16 is no multiple of n_heads = 3"),
        (["reward.heads=[{column: view, weight: 0}]"], "reward: heads have no weight above 0"),
    ],
)
def test_settings_that_no_alignment_can_honour_stop_a_run_before_anything_is_trained(
    call, tmp_path, overrides, sentence
):
    with pytest.raises(ConfigError, match=sentence):
        call("run", "tiny", "--output", tmp_path / "run", *overrides)
    assert not (tmp_path / "run").exists()


def test_settings_that_do_not_fit_are_all_named_at_once(call, tmp_path):
    given = ["align.n_groups=3", "align.objective={name: kto}"]
    with pytest.raises(ConfigError, match=r"align: objective kto .*\nalign: 8 beams in 3 groups"):
        call("run", "tiny", "--output", tmp_path / "run", *given)


def test_an_experiment_names_the_arm_whose_settings_do_not_fit(call, tmp_path):
    given = ["alignment", "--output", tmp_path / "run", "run.align.n_beams=6"]
    with pytest.raises(ConfigError, match=r"^arm ipa_safe: 6 beams in 4 groups"):
        call("ablate", *given)
    with pytest.raises(ConfigError, match=r"ids\.path = x\.index\.json gives no item vectors"):
        call("ablate", *given, "arms=[rerank]", "run.ids.path=x.index.json")
    with pytest.raises(ConfigError, match=r"seeds\.1 = -1: must be greater than or equal to 0"):
        call("ablate", "alignment", "--output", tmp_path / "run", "seeds=[0, -1]")
    with pytest.raises(ConfigError, match=r"align\.n_session = 601 is above the 600 items"):
        call("ablate", "alignment", "--output", tmp_path / "run", "run.align.n_session=601")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["run", "ablate"])
def test_a_log_that_no_alignment_can_read_stops_before_anything_is_trained(call, tmp_path, command):
    path = tmp_path / "log.csv"
    rows = [
        f"{user},{item},{item},{item // 5},{item % 2}" for user in "abcdef" for item in range(20)
    ]
    path.write_text("\n".join(["user_id,item_id,timestamp,list,view", *rows]) + "\n")
    where = "" if command == "run" else "run."
    source = f"name: table, path: {path}, feedback: [view]"
    preset = "tiny" if command == "run" else "alignment"
    given = [command, preset, "--output", tmp_path / "run", f"{where}data.positive=[]"]
    given += [f"{where}reward.heads=[{{column: view, at_least: 1}}]"]
    timeless = f"{where}data.source={{{source}, timestamp: null, request: list}}"
    with pytest.raises(ConfigError, match="reward: the log has no timestamps"):
        call(*given, timeless, f"{where}sessions={{by: request}}")
    with pytest.raises(ConfigError, match=r"sessions\.by = request: the log has no request ids"):
        call(*given, f"{where}data.source={{{source}}}", f"{where}sessions={{by: request}}")
    assert not (tmp_path / "run").exists()
