"""The command `svtrv2 publish` with a fake API of the Hub, and loading of a published model."""

import base64
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import draw, make_folder
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file, save_file

from svtrv2_hf.cli import main
from svtrv2_hf.evaluation.provenance import weights_digest
from svtrv2_hf.hub import check, publish


TOKEN = "hf_" + "aB3" * 11  # in parts, for scanners of this file


@pytest.fixture
def hub(monkeypatch):
    """The requests to a fake Hub."""
    requests = []

    class Api:
        def create_repo(self, repo, **options):
            requests.append(("create", repo, options))

        def upload_folder(self, **options):
            sent = {path.name: path.read_bytes() for path in Path(options["folder_path"]).iterdir()}
            requests.append(("upload", options["repo_id"], {**options, "sent": sent}))
            return SimpleNamespace(commit_url="https://example.org/commit")

    monkeypatch.setattr(publish, "HfApi", Api)
    return requests


def append(path, text):
    path.write_text(path.read_text() + text if path.exists() else text)


def run(folder, *words, repo="me/reader"):
    return main(["publish", str(folder), "--repo", repo, *words])


@pytest.fixture
def same_process(monkeypatch):
    """Skips the prediction in a new process, which is slow."""
    monkeypatch.setattr(check, "check_use", lambda folder, sample: [])


@pytest.fixture
def with_card(saved, hub, monkeypatch):
    """The folder after a dry run, which has written its card."""
    with monkeypatch.context() as patch:
        patch.setattr(check, "check_use", lambda folder, sample: [])
        assert run(saved, "--license", "mit", "--dry-run") == 0
    return saved


@pytest.fixture
def results(saved, tmp_path):
    """A results file of the model for two images of a dataset named SVT."""
    path = tmp_path / "results.json"
    data = make_folder(tmp_path / "data", ["ab", "cd"])
    main(["evaluate", "--model", str(saved), f"SVT={data}", "--output", str(path)])
    return path


def test_model_without_a_card_gets_one_and_is_uploaded(saved, hub, results, capsys):
    content = json.loads(results.read_text())
    content["sets"]["mine"] = {**content["sets"].pop("SVT"), "warnings": []}
    results.write_text(json.dumps(content))
    (saved / "checkpoint-5").mkdir()
    (saved / "checkpoint-5" / "model.safetensors").write_bytes(b"older")
    (saved / "notes.txt").write_text("mine")
    words = ("--license", "cc-by-4.0", "--language", "en", "--results", str(results), "--private", "--handler")
    assert run(saved, *words) == 0
    assert [(kind, repo) for kind, repo, _ in hub] == [("create", "me/reader"), ("upload", "me/reader")]
    assert hub[0][2]["private"] is True
    assert "Not published: checkpoint-5/, notes.txt" in capsys.readouterr().err
    sent = set(hub[1][2]["sent"])
    assert {"model.safetensors", "README.md", "handler.py"} <= sent
    assert not sent & {"notes.txt", "checkpoint-5/model.safetensors"}
    card = (saved / "README.md").read_text()
    fields = yaml.safe_load(card.split("---\n")[1])
    assert (fields["license"], fields["language"], fields["pipeline_tag"]) == ("cc-by-4.0", "en", "image-to-text")
    [result] = fields["model-index"][0]["results"]
    figures = {metric["type"]: metric["value"] for metric in result["metrics"]}
    mine = content["sets"]["mine"]
    assert figures == {"accuracy": round(100 * mine["word_accuracy"], 2), "cer": round(100 * mine["cer"], 2)}
    assert fields["metrics"] == ["accuracy", "cer"]
    assert result["metrics"][0]["name"] == "Word accuracy (ASCII letters and digits, case ignored)"
    assert 'pipeline("image-to-text", "me/reader", trust_remote_code=True)' in card
    assert "characters and the space: `` 0123" in card
    assert "| mine " in card and "{{" not in card
    assert "## Training" not in card


def test_dry_run_with_relative_paths_uploads_nothing(saved, hub, capsys, monkeypatch):
    monkeypatch.chdir(saved.parent)
    draw("abc").save("sample.png")
    assert run(saved.name, "--license", "mit", "--sample", "sample.png", "--dry-run") == 0
    assert not hub
    assert "is ready to be published as me/reader" in capsys.readouterr().out


@pytest.mark.usefixtures("same_process")
def test_existing_card_is_kept(with_card, hub, capsys):
    card = (with_card / "README.md").read_text() + "\nMine.\n"
    (with_card / "README.md").write_text(card)
    assert run(with_card) == 0
    assert "no effect" not in capsys.readouterr().err
    assert run(with_card, "--license", "mit", "--language", "en") == 0
    assert (with_card / "README.md").read_text() == card
    assert "--license and --language had no effect, since" in capsys.readouterr().err
    assert len(hub) == 4


@pytest.mark.usefixtures("same_process")
def test_results_of_other_weights_raise(saved, hub, results, capsys):
    content = json.loads(results.read_text())
    assert content["weights_sha256"] == hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest()
    words = ["--license", "mit", "--results", str(results), "--dry-run"]
    results.write_text(json.dumps({**content, "weights_sha256": "0" * 64}))
    assert run(saved, *words) == 1
    assert "is of other weights" in capsys.readouterr().err
    assert not (saved / "README.md").exists()
    del content["weights_sha256"]
    results.write_text(json.dumps(content))
    assert run(saved, *words) == 0
    assert "has no digest of the weights" in capsys.readouterr().err


def test_results_of_an_unknown_protocol_raise(saved, results, capsys):
    results.write_text(results.read_text().replace('"alphanumeric"', '"english"'))
    assert run(saved, "--license", "mit", "--results", str(results), "--dry-run") == 1
    assert (
        "results.json, SVT: Unknown protocol 'english': choose exact, case_insensitive, alphanumeric or no_spaces. Evaluate the "
        "model again." in capsys.readouterr().err
    )


def test_digest_covers_all_weight_files(model, tmp_path):
    model.save_pretrained(tmp_path / "parts", max_shard_size="50KB")
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    digest = weights_digest(str(tmp_path / "parts"))
    assert len(digest) == 64
    (part := sorted((tmp_path / "parts").glob("*.safetensors"))[-1]).write_bytes(part.read_bytes()[:-1] + b"x")
    assert weights_digest(str(tmp_path / "parts")) not in (digest, None)
    assert weights_digest("someone/missing") is None


@pytest.mark.usefixtures("same_process")
def test_incomplete_benchmark_is_not_in_the_metadata(saved, hub, results):
    assert run(saved, "--license", "mit", "--results", str(results), "--dry-run") == 0
    _, metadata, text = (saved / "README.md").read_text().split("---\n", 2)
    assert "model-index" not in yaml.safe_load(metadata)
    assert "SVT has 2 samples, but the benchmark has 647" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model": "nano", "steps": 5}', "was not written by svtrv2 evaluate"),
        ("[1]", "was not written by svtrv2 evaluate"),
        ('{"sets": [1]}', "was not written by svtrv2 evaluate"),
        ("{", "is not JSON"),
        (b"\xff", "is not JSON"),
    ],
)
def test_invalid_results_raise(saved, hub, tmp_path, capsys, content, message):
    path = tmp_path / "run.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run(saved, "--license", "mit", "--results", str(path)) == 1
    assert message in capsys.readouterr().err
    assert not hub


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda folder: (folder / "learning_curve.png").write_text("hf_token"), "learning_curve.png is not a PNG"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is not valid JSON"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "svtrv2"}'),
            "config.json has no auto_map",
        ),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "not a safetensors file"),
        (lambda folder: (folder / "README.md").write_text("# No metadata"), "does not begin with metadata"),
        (lambda folder: (folder / "README.md").write_text("---\nlicense: mit\n---\n"), "has no pipeline_tag"),
        (lambda folder: append(folder / "README.md", "TODO"), "contains a TODO"),
    ],
)
def test_incomplete_or_damaged_model_is_not_published(with_card, hub, capsys, damage, message):
    damage(with_card)
    assert run(with_card) == 1
    assert message in capsys.readouterr().err
    assert not hub


@pytest.mark.parametrize(
    ("words", "repo", "message"),
    [
        ([], "reader", "must be OWNER/NAME"),
        (["--license", "mit"], "me/x y", "--repo 'me/x y' is not a valid Hub id"),
        (["--license", "Apache-2.0"], "me/reader", "lower case"),
        (["--license", "apache 2.0"], "me/reader", "lower case"),
        (["--license", " "], "me/reader", "lower case"),
        ([], "me/reader", "needs the license"),
    ],
)
def test_invalid_options_raise(saved, hub, capsys, words, repo, message):
    assert run(saved, *words, repo=repo) == 1
    assert message in capsys.readouterr().err
    assert not (saved / "README.md").exists() and not hub


def test_missing_folder_raises(hub, tmp_path, capsys):
    assert run(tmp_path / "none") == 1
    assert f"Folder not found: {tmp_path / 'none'}" in capsys.readouterr().err


@pytest.mark.usefixtures("same_process")
def test_token_is_not_printed(saved, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert run(saved, "--license", "mit") == 1  # without a network
    printed = capsys.readouterr()
    assert "hf_secret" not in printed.out + printed.err
    assert "me/reader" in printed.err


def test_published_model_loads_by_name(with_card, tmp_path):
    """In new processes with and without this package, from a cache of the Hub."""
    revision = "0" * 40
    repository = tmp_path / "hub" / "models--me--reader"
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    check.stage(with_card, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    draw("Hello").save(tmp_path / "word.png")
    programs = {
        "with": 'import svtrv2_hf; from transformers import pipeline; read = pipeline("text-recognition", "me/reader")',
        "without": 'import sys; sys.modules["svtrv2_hf"] = None; from transformers import pipeline; '
        'read = pipeline("image-to-text", "me/reader", trust_remote_code=True)',
    }
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
    }
    texts = set()
    for program in programs.values():
        command = [
            sys.executable,
            "-c",
            f"{program}; result = read('word.png')[0]; print(result.get('text', result.get('generated_text')))",
        ]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        texts.add(done.stdout.strip().splitlines()[-1])
    assert len(texts) == 1


MARK = "import os; open(os.environ['RAN'], 'w').write('ran')\n"


def test_only_the_code_of_the_package_is_run_and_published(saved, hub, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    own = (saved / "modeling_svtrv2.py").read_bytes()
    tampered = own + MARK.encode()
    (saved / "modeling_svtrv2.py").write_bytes(tampered)
    (saved / "other_svtrv2.py").write_text(MARK)
    assert run(saved, "--license", "mit") == 0
    assert "Replaced by the code of this package: modeling_svtrv2.py, other_svtrv2.py" in (
        err := capsys.readouterr().err
    )
    assert "Not published: other_svtrv2.py" in err
    assert not (tmp_path / "ran").exists()
    sent = hub[1][2]["sent"]
    assert sent["modeling_svtrv2.py"] == own
    assert "other_svtrv2.py" not in sent
    assert (saved / "modeling_svtrv2.py").read_bytes() == tampered, "the folder does not change"


@pytest.mark.parametrize(
    ("file", "change"),
    [
        (
            "config.json",
            {"auto_map": {"AutoConfig": "configuration_svtrv2.SVTRv2Config", "AutoModelForCTC": "evil.Model"}},
        ),
        ("config.json", {"auto_map": {"AutoModelForCTC": "someone/evil--modeling_svtrv2.SVTRv2ForCTC"}}),
        ("config.json", {"custom_pipelines": {"image-to-text": {"impl": "evil.Pipeline", "pt": ["AutoModelForCTC"]}}}),
        ("config.json", {"attn_implementation": "someone/kernel"}),
        ("config.json", {"attn_implementation": {"": "someone/kernel"}}),
        ("config.json", {"auto_map": {"AutoConfig": "modeling_svtrv2.os"}}),
        ("tokenizer_config.json", {"chat_template": "{{ 1 }}"}),
        ("processor_config.json", {"auto_map": {"AutoProcessor": "evil.Processor"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
    ],
)
def test_references_to_other_code_are_rejected(with_card, hub, capsys, monkeypatch, file, change):
    path = with_card / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert run(with_card) == 1
    assert f"{file} refers to other code" in capsys.readouterr().err
    assert not hub


@pytest.mark.usefixtures("same_process")
@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("README.md", f"\nTrained with HF_TOKEN={TOKEN} svtrv2 train\n"),
        ("README.md", "\nData: https://me:pass@example.org/train.parquet\n"),
        ("LICENSE", "ghp_abcdefghijklmnopqrstuvwxyz0123456789"),
        ("LICENSE.txt", TOKEN),
        ("README.md", "\npassword: S3cretPass\n"),
        ("run.json", json.dumps({"recipe": {"hub_token": "short"}})),
        ("run.json", json.dumps({"recipe": {"password": 12345678}})),
        ("run.json", json.dumps({"command": "python scripts/train.py --hub_token short"})),
        ("run.json", json.dumps({"recipe": {"train_data": ["https://example.org/a.parquet?X-Amz-Signature=0a1b2c"]}})),
    ],
)
def test_secrets_are_not_published(with_card, hub, capsys, file, text):
    append(with_card / file, text)
    assert run(with_card) == 1
    assert f"{file} contains a possible token" in capsys.readouterr().err
    assert not hub


@pytest.mark.usefixtures("same_process")
@pytest.mark.parametrize("name", ["picture.png", "README.md"])
def test_links_to_files_outside_the_folder_raise(saved, hub, tmp_path, capsys, name):
    (saved / name).symlink_to(tmp_path / f"elsewhere-{name}")
    assert run(saved, "--license", "mit") == 1
    assert f"has links to files outside of it: {name}" in capsys.readouterr().err
    assert not hub and not (tmp_path / f"elsewhere-{name}").exists()


def test_other_process_gets_no_secrets(with_card, monkeypatch):
    seen = {}

    def record(command, env, **options):
        seen.update(env)
        return SimpleNamespace(returncode=1, stderr="stop", stdout="")

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("WANDB_API_KEY", "a1b2c3d4e5f6")
    monkeypatch.setattr(check.subprocess, "run", record)
    assert check.check_folder(with_card) == ["it does not load if svtrv2_hf is not installed: stop"]
    assert "PATH" in seen
    assert not seen.keys() & {"HF_TOKEN", "WANDB_API_KEY"}


@pytest.mark.usefixtures("same_process")
def test_other_files_are_not_published(with_card, hub, capsys):
    names = [
        "LICENSE.py",
        "NOTICE.env",
        "NOTICE.pkl",
        "a.svg",
        "optimizer.safetensors",
        "tokenizer-x.json",
        "training_args.bin",
    ]
    for name in names:
        torch.save({}, with_card / name)
    assert run(with_card) == 0
    assert f"Not published: {', '.join(names)}" in capsys.readouterr().err
    assert not hub[1][2]["sent"].keys() & set(names)


@pytest.mark.usefixtures("same_process")
def test_secrets_in_metadata_are_not_published(with_card, hub, capsys):
    texts = PngInfo()
    texts.add_text("Comment", f"made with {TOKEN}")
    draw("a").save(with_card / "picture.png", pnginfo=texts)
    weights = load_file(with_card / "model.safetensors")
    save_file(weights, with_card / "model.safetensors", metadata={"format": "pt", "note": TOKEN})
    assert run(with_card) == 1
    errors = capsys.readouterr().err
    assert "picture.png contains a possible token, password or credential, in its metadata" in errors
    assert "model.safetensors contains a possible token" in errors
    assert not hub


@pytest.fixture
def handler(saved, tmp_path):
    """The handler of a published model, loaded as the toolkit of Inference Endpoints does."""
    folder = tmp_path / "staged"
    folder.mkdir()
    check.stage(saved, folder, handler=True)
    spec = importlib.util.spec_from_file_location("handler", folder / "handler.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EndpointHandler(str(folder))


def test_handler_reads_images_but_no_paths_and_urls(handler, tmp_path):
    image = draw("abc")
    image.save(tmp_path / "abc.png")
    content = (tmp_path / "abc.png").read_bytes()
    encoded = base64.b64encode(content).decode()
    # a request with an image, which the toolkit decodes, or with JSON
    [expected] = handler({"inputs": image})
    assert expected["generated_text"] != ""
    results = handler({"inputs": [content, encoded, f"data:image/png;base64,{encoded}", "bm90IGFuIGltYWdl"]})
    assert [result["generated_text"] for result in results] == [expected["generated_text"]] * 3 + [""]
    assert "error" in results[3]
    [result] = handler({"inputs": encoded, "parameters": {"return_characters": True}})
    assert len(result["characters"]) == len(expected["generated_text"])
    for source in (str(tmp_path / "abc.png"), "https://example.org/a.png", None, {"path": "abc.png"}, [encoded]):
        with pytest.raises(ValueError, match="must be an image in base64"):
            handler({"inputs": [source]})
    with pytest.raises(ValueError, match="Unknown parameter 'timeout'"):
        handler({"inputs": encoded, "parameters": {"timeout": None}})
