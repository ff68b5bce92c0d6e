import pytest
from trillium.config import dump_config, find_run_file, list_presets, load_config
from trillium.errors import ConfigError
from trillium_code.config import CodeConfig
from trillium_code.prompts import PROGRAM_STOPS, TEST_STOPS


@pytest.mark.parametrize("name", ["demo", "humaneval", "mbpp", "qwen_gpu"])
def test_every_preset_is_valid_and_begins_with_its_command(name):
    path = find_run_file(name, package="trillium_code")
    load_config(CodeConfig, path)
    assert path.read_text().startswith(f"# trillium code run {name}")
    assert set(list_presets("trillium_code")) >= {"demo", "humaneval", "mbpp", "qwen_gpu"}


def test_changing_the_number_of_samples_keeps_the_stop_strings():
    config = load_config(CodeConfig, None, ["programs.n_samples=3", "tests.temperature=0.5"])
    assert (config.programs.n_samples, config.programs.stop) == (3, PROGRAM_STOPS)
    assert (config.tests.temperature, config.tests.stop) == (0.5, TEST_STOPS)


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
