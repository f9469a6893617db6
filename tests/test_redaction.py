"""Redaction of secrets in texts, commands, recipes and output."""

import json
import shlex

import pytest
from conftest import make_folder

from svtrv2_hf.cli import main
from svtrv2_hf.redaction import environment_without_secrets, is_secret_name, lines_with_secrets, redact, redact_values


TOKEN = "hf_" + "aB3" * 11  # in parts, for scanners of this file


KEY = " ".join(("PRIVATE", "KEY"))  # in parts, so that no scanner takes it for a secret


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f"token {TOKEN}.", "token ***."),
        ("--hub_token secret --seed 1", "--hub_token *** --seed 1"),
        ("--hub_token=secret --seed 1", "--hub_token=*** --seed 1"),
        ("--hub-token 'my secret' x", "--hub-token *** x"),
        ("https://me:pass@example.org/a?b=c", "https://***@example.org/a?b=c"),
        ("https://glpat@example.org/a", "https://***@example.org/a"),
        ("https://example.org/a?sv=1&sig=aB%2F&se=2", "https://example.org/a?sv=1&sig=***&se=2"),
        ("s3://b/k?X-Amz-Credential=a/b&X-Amz-Signature=c", "s3://b/k?X-Amz-Credential=***&X-Amz-Signature=***"),
        ('{"hub_token": "secret", "pad_token": "<blank>"}', '{"hub_token": "***", "pad_token": "<blank>"}'),
        ("WANDB_API_KEY=abc svtrv2 train", "WANDB_API_KEY=*** svtrv2 train"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789 AKIAABCDEFGHIJKLMNOP", "*** ***"),
        ("https://me:S3cr@t9word@host/x", "https://***@host/x"),
        ("postgres://u:S3cr/et@h/db", "postgres://***@h/db"),
        ("no file http:/me:S3cr@t@127.0.0.1:9/x.png", "no file http:/***@127.0.0.1:9/x.png"),
        ("https://h/a?access=abc&code=d#access_token=e", "https://h/a?access=***&code=***#access_token=***"),
        ("https://h/a?subscription-key=abc&token%3Dabc", "https://h/a?subscription-key=***&token%3D***"),
        ("--hub_tok secret", "--hub_tok ***"),
        ("hub_token: secret-value", "hub_token: ***"),
        ("password = S3cretPass", "password = ***"),
        ("Authorization: Bearer abcdef0123", "Authorization: Bearer ***"),
        ("curl -u me:password https://h", "curl -u *** https://h"),
        (f"a -----BEGIN {KEY}-----\nMII\n-----END {KEY}----- b", "a *** b"),
    ],
)
def test_secrets_are_replaced(text, redacted):
    assert redact(text) == redacted
    assert redact(redacted) == redacted
    assert lines_with_secrets(text)
    assert not lines_with_secrets(redacted)
    assert not lines_with_secrets(json.dumps({"command": redacted}, indent=1)), "as in run.json"


@pytest.mark.parametrize(
    "text",
    [
        "hf_hub_download and hf_integration.md",
        "me@example.org",
        "hf://datasets/me/words@main/train.parquet?text=label",
        "--tokenizer_name x --max_label_length 25",
        "http://localhost:8080/a/b@c",
        "the password: ask me",
        '{"split_special_tokens": "x", "pad_token": "<blank>"}',
        "A token is a character; the tokenizer has 95.",
        '{"unk_token": "<unk>", "bos_token": null}',
        "svtrv2 train --hub_token --seed 1",
    ],
)
def test_other_texts_do_not_change(text):
    assert redact(text) == text


def test_values_of_secret_environment_variables_are_replaced(monkeypatch):
    monkeypatch.setenv("MY_PASSWORD", "correct horse")
    assert redact("with correct horse inside") == "with *** inside"
    assert "MY_PASSWORD" not in environment_without_secrets()
    assert "PATH" in environment_without_secrets()


def test_nested_values_are_replaced():
    content = {"a": [{"password": "x", "n": 1, "b": f"see {TOKEN}"}], "secret": None, "seed": 3}
    assert redact_values(content) == {"a": [{"password": "***", "n": 1, "b": "see ***"}], "secret": None, "seed": 3}
    content = {"password": 12345678, "token": ["x"], "hf_token_read": {"value": "x"}, "use_token": True}
    assert redact_values(content) == {"password": "***", "token": "***", "hf_token_read": "***", "use_token": True}


@pytest.mark.parametrize(
    ("name", "secret"), [("HF_TOKEN", True), ("hub-token", True), ("pad_token", False), ("tokenizer", False)]
)
def test_names_of_secrets_are_recognized(name, secret):
    assert is_secret_name(name) == secret


@pytest.mark.parametrize("given", ["option", "recipe", "environment"])
def test_training_writes_no_token(given, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("HF_TOKEN", "")
    data = make_folder(tmp_path / "data", ["ab", "cd"])
    output = tmp_path / "output"
    words = ["--model", "nano", "--train_data", str(data), "--output_dir", str(output), "--max_steps", "1"]
    words += ["--per_device_train_batch_size", "2", "--use_cpu", "True", "--save_steps", "1"]
    if given == "option":
        words += ["--hub_token", TOKEN]
    elif given == "recipe":
        (tmp_path / "recipe.yaml").write_text(f"hub_token: {TOKEN}\n")
        words.insert(0, str(tmp_path / "recipe.yaml"))
    else:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        words += ["--run_name", f"run of {TOKEN}"]
    assert main(["train", *words]) == 0
    printed = "".join(capfd.readouterr())
    assert TOKEN not in printed
    files = [path for path in output.rglob("*") if path.is_file()]
    assert {"run.json", "training_args.bin"} <= {path.name for path in files}
    if given != "environment":  # the run name stays in training_args.bin, which is not published
        assert not [path for path in files if TOKEN.encode() in path.read_bytes()]
    record = (output / "run.json").read_text()
    assert TOKEN not in record
    assert "***" in record
    assert shlex.split(json.loads(record)["command"])[:2] == ["svtrv2", "train"]


def test_abbreviated_token_is_not_printed(capsys):
    assert main(["train", "--train_data", "x", f"--hub_tok={TOKEN}"]) == 1
    printed = "".join(capsys.readouterr())
    assert TOKEN not in printed and "did you mean --hub_token?" in printed


def test_password_of_a_url_is_not_printed(capsys):
    assert main(["audit", "https://me:password@127.0.0.1:9/a.parquet"]) == 1
    assert "password" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_credentials_of_an_image_url_are_not_printed(words, capsys):
    assert main(["read", "http://me:S3cretpw@127.0.0.1:9/x.png?X-Amz-Signature=S3cretsig", *words]) == 1
    printed = "".join(capsys.readouterr())
    assert "127.0.0.1" in printed
    assert "S3cret" not in printed
