"""What evidence shows of environments and command lines, and what it masks."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.agent.masking import HARMLESS, named_by, shown_command, shown_text, shown_variable
from trainseal.agent.observed import Process
from trainseal.provenance.commandlines import loads_code

#: No mask and no name holds this character, so what of a secret is left shows.
SECRETS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60).map(lambda s: f"§{s}§")
#: As they stand in a word of a command line: no quotes and nothing that ends a shell's word.
WORDS = st.from_regex(r"§[A-Za-z0-9_.~/+%^*-]{0,60}§", fullmatch=True)
NAMES = st.one_of(
    st.from_regex(r"[A-Z_][A-Z0-9_]{0,20}", fullmatch=True),
    st.sampled_from(["WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PYTHON_API_TOKEN"]),
    st.text(max_size=20).filter(lambda name: "§" not in name and "=" not in name),
)


@given(NAMES.filter(lambda name: name not in HARMLESS and not loads_code(name)), SECRETS)
def test_no_value_of_a_variable_that_is_not_allowed_is_shown(name: str, value: str) -> None:
    shown = "".join(shown_variable(name, value))
    assert "§" not in shown
    assert f"({len(value)} characters)" in shown


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PYTHONPATH", "NCCL_NET_PLUGIN", "PATH", "RANK"])
def test_what_loads_code_and_what_is_harmless_is_shown(name: str) -> None:
    assert shown_variable(name, "/opt/x.so") == (name, "/opt/x.so")


@pytest.mark.parametrize("name", ["PYTHON_API_TOKEN", "NCCL_PLUGIN_SECRET", "PYTHON_PASSWORD2"])
def test_a_secret_named_like_a_variable_that_loads_code_is_masked(name: str) -> None:
    assert loads_code(name)
    assert shown_variable(name, "12345678") == (name, "(8 characters)")


def test_a_title_written_over_the_environment_shows_nothing() -> None:
    assert shown_variable("train.py --password hunter2 --lr", "3") == (
        "(32 characters)",
        "(1 characters)",
    )


OPTIONS = ["--token", "--api-key", "-password", "--hf_token", "--db.password", "--WANDB-API-KEY"]


@given(st.sampled_from(OPTIONS), SECRETS, st.sampled_from(["joined", "apart"]))
def test_the_value_of_an_option_that_sounds_secret_is_masked(
    option: str, secret: str, how: str
) -> None:
    words = [f"{option}={secret}"] if how == "joined" else [option, secret]
    shown = shown_command(["python", "train.py", *words, "--lr", "3e-4"])
    assert "§" not in "".join(shown)
    assert shown[-2:] == ["--lr", "3e-4"]
    assert shown[2].startswith(option)


def test_a_secret_of_several_words_in_one_argument_is_masked_whole() -> None:
    assert shown_command(["env", "DB_PASSWORD=a b c", "--pass=d e"]) == [
        "env",
        "DB_PASSWORD=(5 characters)",
        "--pass=(3 characters)",
    ]


SHELLS = [
    "export WANDB_API_KEY={}; python train.py",
    "HF_TOKEN={} python train.py",
    "python train.py --password {} --lr 1",
    "curl -H 'Authorization: Bearer {}' https://x",
    "curl -u bob:{} https://x",
    "curl https://bob:{}@host:8080/x",
    "curl 'https://x/y?token={}&z=1'",
    'echo \'{{"password": "{}"}}\' > x',
]


@given(st.sampled_from(SHELLS), WORDS)
def test_secrets_in_the_text_of_a_shell_are_masked(script: str, secret: str) -> None:
    if "@host" in script:
        secret = secret.replace("/", "-")
    if "Bearer" in script:
        secret = secret.replace("§", "zzzz").replace("%", "").replace("^", "").replace("*", "")
        assert secret not in "".join(shown_command(["sh", "-c", script.format(secret)]))
        return
    assert "§" not in "".join(shown_command(["sh", "-c", script.format(secret)]))


@given(SECRETS)
def test_a_quoted_secret_is_masked_to_its_end(secret: str) -> None:
    shown = shown_text(f"API_KEY={shlex.quote(secret)} python train.py")
    assert "§" not in shown
    assert shown.endswith(" python train.py")


@pytest.mark.parametrize(
    "token",
    [
        "AKIAABCDEFGHIJKLMNOP",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "hf_abcdefghijklmnopqrstuvwxyz",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdef",
        "-----BEGIN PRIVATE KEY-----\nMIIE",
    ],
)
def test_what_has_the_form_of_a_token_is_masked_wherever_it_stands(token: str) -> None:
    assert token not in "".join(shown_command(["python", "x.py", token, f"--note={token}"]))
    assert token not in "".join(shown_variable("PYTHONPATH", f"/opt/{token}"))


@pytest.mark.parametrize(
    "command",
    [
        ["sed", "-i", "s/lr/-lr/", "/usr/lib/python3/torch/optim/adam.py"],
        ["python", "-u", "/workspace/train.py", "--max-tokens", "512", "--tokenizer=gpt2"],
        ["torchrun", "--nproc-per-node", "8", "--rdzv-endpoint=master:29500", "train.py"],
        ["python", "train.py", "--key-dim", "64", "--num_tokens=4"],
        ["sh", "-c", "echo 'lr = 0' >> /x/adam.py && exec python train.py --path=/x"],
    ],
)
def test_what_training_jobs_are_started_with_is_shown_as_it_is(command: list[str]) -> None:
    assert shown_command(command) == command


@given(st.lists(st.text(max_size=40), max_size=20), st.integers(1, 300))
def test_a_message_names_a_process_within_its_bounds(words: list[str], most: int) -> None:
    process = Process(7, 1, datetime(2026, 11, 1, tzinfo=UTC), "/bin/x", tuple(words), 0, None)
    assert len(named_by(process, most)) <= max(most, len("/bin/x"))


def test_a_message_names_a_process_without_the_secrets_on_its_command_line() -> None:
    words = ("curl", "-H", "Authorization: Bearer abcdef0123456789", "https://u:pw@example.org/x")
    process = Process(7, 1, datetime(2026, 11, 1, tzinfo=UTC), "/usr/bin/curl", words, 0, None)
    told = named_by(process)
    assert "abcdef0123456789" not in told
    assert "pw@" not in told
    assert told.startswith("curl -H Authorization: ")
