import pytest
from trillium.config import dump_config, find_run_file, list_presets, load_config
from trillium.errors import ConfigError
from trillium_code.ablation import AblationConfig
from trillium_code.config import CodeConfig
from trillium_code.invention import InventionConfig
from trillium_code.prompt_config import PROGRAM_STOPS, TEST_STOPS

PRESETS = {
    "": ("trillium code run", CodeConfig, {"demo", "humaneval", "mbpp", "qwen_gpu"}),
    "ablate": ("trillium code ablate", AblationConfig, {"ablation", "mbpp_gpu", "own", "own_gpu"}),
    "invent": ("trillium code tasks invent", InventionConfig, {"invent"}),
}


@pytest.mark.parametrize("command", PRESETS)
def test_every_command_has_its_own_presets_each_valid_and_beginning_with_the_command(command):
    spoken, model, names = PRESETS[command]
    presets = list_presets("trillium_code", command=command)
    assert set(presets) == names
    for name, path in presets.items():
        load_config(model, path)
        assert path.read_text().startswith(f"# {spoken} {name}")


def test_a_preset_of_another_command_is_not_offered():
    with pytest.raises(ConfigError, match=r"own: no such .* demo, humaneval, mbpp, qwen_gpu\)"):
        find_run_file("own", package="trillium_code")
    with pytest.raises(ConfigError, match=r"ablation, mbpp_gpu, own, own_gpu\)"):
        find_run_file("demo", package="trillium_code", command="ablate")


def test_changing_the_number_of_samples_keeps_the_stop_strings():
    config = load_config(CodeConfig, None, ["programs.n_samples=3", "tests.temperature=0.5"])
    assert (config.programs.n_samples, config.programs.stop) == (3, PROGRAM_STOPS)
    assert (config.tests.temperature, config.tests.stop) == (0.5, TEST_STOPS)


@pytest.mark.parametrize("given", ["programs.stop=['']", "tests.stop=['']"])
def test_an_empty_stop_string_is_refused(given):
    """It would end every completion before it began."""
    with pytest.raises(ConfigError, match=r"stop\.0"):
        load_config(CodeConfig, None, [given])


def test_a_saved_configuration_reads_back(tmp_path):
    config = load_config(CodeConfig, find_run_file("demo", package="trillium_code"))
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert load_config(CodeConfig, path) == config


def test_k_beyond_the_samples_is_refused():
    with pytest.raises(ConfigError, match=r"evaluate\.k = 16 needs that many samples"):
        load_config(CodeConfig, None, ["evaluate.k=[1, 16]"])


def test_an_unknown_key_names_the_nearest_right_one():
    with pytest.raises(ConfigError, match=r"rank\.min_agreement"):
        load_config(CodeConfig, None, ["rank.min_agrement=2"])


def test_a_level_out_of_reach_is_refused_with_what_to_set():
    with pytest.raises(
        ConfigError, match=r"sandbox\.min_level = 9: the embedded backend reaches level 2; set 2"
    ):
        load_config(CodeConfig, None, ["sandbox.min_level=9"])


def test_a_token_that_is_not_in_its_variable_is_told(monkeypatch):
    monkeypatch.delenv("MY_TOKEN", raising=False)
    given = ["sandbox.backend=http", "sandbox.url=http://127.0.0.1:9", "sandbox.min_level=4"]
    config = load_config(CodeConfig, None, [*given, "sandbox.token_variable=MY_TOKEN"])
    with pytest.raises(ConfigError, match=r"token_variable = MY_TOKEN: is not set"):
        config.sandbox.open()


def test_a_free_answer_has_no_stop_strings_but_those_of_the_run_file(tmp_path):
    asked = ["prompt.program_style=answer", "evaluate.sampling={n_samples: 9, stop: [STOP]}"]
    config = load_config(CodeConfig, None, asked)
    assert config.programs.stop == ()
    assert (config.evaluate.sampling.stop, config.evaluate.sampling.n_samples) == (("STOP",), 9)
    assert config.tests.stop == TEST_STOPS
    default = load_config(CodeConfig, None, asked[:1])
    assert (default.evaluate.sampling.stop, default.evaluate.sampling.n_samples) == ((), 8)
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert load_config(CodeConfig, path) == config


@pytest.mark.parametrize("key", ["programs", "evaluate.sampling"])
def test_a_stop_string_that_ends_every_free_answer_is_refused(key):
    given = ["prompt.program_style=answer", f'{key}.stop=[STOP, "\\n```"]']
    with pytest.raises(ConfigError, match=rf"{key}\.stop has '\\n```', .* set {key}\.stop=\[\]"):
        load_config(CodeConfig, None, given)


def test_signatures_that_the_prompt_begins_need_no_repair():
    with pytest.raises(ConfigError, match=r"repairs_signature = true: .* set program_style=answer"):
        load_config(CodeConfig, None, ["prompt.repairs_signature=true"])
