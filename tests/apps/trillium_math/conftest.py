"""A completions server that plays a policy by script, and the agent's parts around it.

The agent talks to it through the same client as to any server; only what the policy says is fixed.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trillium.generation.server import ServerConfig, ServerGenerator
from trillium.policies.tiny import CHATML
from trillium_math.agent.config import AgentConfig, ToolConfig, TurnSampling
from trillium_math.agent.dialogue import Dialogue
from trillium_math.agent.rollout import Roller
from trillium_math.agent.steps import split_steps
from trillium_math.agent.tool import PythonTool
from trillium_math.grading import Grader
from trillium_math.localisation.mistake import Mistake, Toolbox
from trillium_math.problems import Problem


def make_tokenizer(template=CHATML):
    """Bytes and one merge, `12`: text with it has two spellings in tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet, "12"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("1", "2")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


class Policy(ThreadingHTTPServer):
    """Serve completions: `script(text so far)` returns what is said next, as token ids.

    As a chat server it answers a question with `judge(question)`.
    """

    daemon_threads = True

    def __init__(self, tokenizer):
        super().__init__(("127.0.0.1", 0), Endpoint)
        self.tokenizer = tokenizer
        self.script = None
        self.judge = None
        self.prompts = []
        self.n_samples = []
        self.questions = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/chat/completions"):
            (message,) = request["messages"]
            self.server.questions.append(message["content"])
            said = self.server.judge(message["content"])
            self.reply({"choices": [{"message": {"role": "assistant", "content": said}}]})
            return
        asked = [prompt for prompt in request["prompt"] for _ in range(request.get("n", 1))]
        self.server.prompts.append(asked)
        self.server.n_samples.append(request.get("n", 1))
        choices = []
        for prompt in asked:
            ids = self.server.script(self.server.tokenizer.decode(prompt))
            cut = ids[: request["max_tokens"]]
            text = self.server.tokenizer.decode(cut, skip_special_tokens=True)
            finish = "stop" if cut == ids else "length"
            choice = {"text": text, "token_ids": cut, "finish_reason": finish}
            choices.append({"index": len(choices), **choice})
        self.reply({"choices": choices})

    def reply(self, answer):
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def tool():
    config = ToolConfig(min_level=1, wall_s=1.0, max_output_chars=200)
    with config.open() as backend:
        yield PythonTool(backend, config)


@pytest.fixture
def policy(tokenizer):
    server = Policy(tokenizer)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def work(policy, tokenizer, tool):
    """Return a function that lets the scripted policy work on problems."""

    def run(script, *questions, n_samples=1, answer="12", **settings):
        policy.script = script
        config = AgentConfig(instruction="{question}", **settings)
        client = ServerConfig(url=policy.url, model="scripted", max_rows=256)
        sampling = TurnSampling(n_samples=n_samples, max_new_tokens=120)
        problems = [Problem(f"p{i}", question, answer) for i, question in enumerate(questions)]
        with Grader(sources=config.answer_sources) as grader:
            roller = Roller(Dialogue(tokenizer, config), tool, grader, config, policy="scripted")
            generator = ServerGenerator(client, tokenizer)
            return roller.roll_out(problems, generator, sampling, seed=0)

    return run


@pytest.fixture
def say(tokenizer):
    """Return a function from text to the ids a policy would sample, end of turn included."""
    return lambda text: [*tokenizer(text, add_special_tokens=False).input_ids, 2]


@pytest.fixture
def toolbox(policy, tokenizer, tool):
    """What localisers work with, around the scripted policy."""
    config = AgentConfig(instruction="{question}", max_turns=3, max_tokens=900)
    client = ServerConfig(url=policy.url, model="scripted", max_rows=256)
    with Grader() as grader:
        dialogue = Dialogue(tokenizer, config)
        yield Toolbox(
            Roller(dialogue, tool, grader, config, policy="scripted"),
            dialogue,
            tool,
            ServerGenerator(client, tokenizer),
            TurnSampling(n_samples=1, max_new_tokens=200),
        )


@pytest.fixture
def play(policy, toolbox, say):
    """Return a function that lets the policy say turns on a problem and cuts them into steps."""

    def run(problem, *turns, name="p#wrong"):
        said = iter(turns)
        policy.script = lambda text: say(next(said))
        partial = toolbox.roller.start(problem, 0).fork(name)
        (one,) = toolbox.roller.complete([partial], toolbox.generator, toolbox.sampling, seed=0)
        steps = split_steps(one.token_ids, one.spans, toolbox.dialogue.decode)
        return Mistake(one, problem, tuple(steps))

    return run
