"""The command `svtrv2 publish`, with the Hub's API replaced; and a published folder found by its name."""

import hashlib
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


TOKEN = "hf_" + "aB3" * 11  # in parts, so that no scanner takes it for a token in this file


@pytest.fixture
def hub(monkeypatch):
    """What is asked of the Hub."""
    asked = []

    class Api:
        def create_repo(self, repo, **options):
            asked.append(("create", repo, options))

        def upload_folder(self, **options):
            sent = {path.name: path.read_bytes() for path in Path(options["folder_path"]).iterdir()}
            asked.append(("upload", options["repo_id"], {**options, "sent": sent}))
            return SimpleNamespace(commit_url="https://example.org/commit")

    monkeypatch.setattr(publish, "HfApi", Api)
    return asked


def run(folder, *words):
    return main(["publish", str(folder), "--repo", "me/reader", *words])


def read_nothing(patch):
    """Leaves out that the folder is read in another process, which takes long."""
    patch.setattr(check, "_faults_in_use", lambda folder, sample: [])


@pytest.fixture
def reads_nothing(monkeypatch):
    read_nothing(monkeypatch)


@pytest.fixture
def with_card(saved, hub, monkeypatch):
    """The folder after a dry run, which has written its card."""
    with monkeypatch.context() as patch:
        read_nothing(patch)
        assert run(saved, "--license", "mit", "--dry-run") == 0
    return saved


def test_a_new_folder_gets_a_card_and_is_uploaded(saved, hub, tmp_path, capsys):
    results = tmp_path / "results.json"
    data = make_folder(tmp_path / "data", ["ab", "cd"])
    assert main(["evaluate", "--model", str(saved), f"mine={data}", "--output", str(results)]) == 0
    (saved / "checkpoint-5").mkdir()
    (saved / "checkpoint-5" / "model.safetensors").write_bytes(b"older")
    (saved / "notes.txt").write_text("mine")
    assert run(saved, "--license", "cc-by-4.0", "--language", "en", "--results", str(results), "--private") == 0
    assert [(kind, repo) for kind, repo, _ in hub] == [("create", "me/reader"), ("upload", "me/reader")]
    assert hub[0][2]["private"] is True
    told = capsys.readouterr()
    assert "Not published: checkpoint-5/, notes.txt" in told.err
    sent = set(hub[1][2]["sent"])
    assert {"model.safetensors", "README.md"} <= sent
    assert not sent & {"notes.txt", "checkpoint-5/model.safetensors"}
    fields = yaml.safe_load((saved / "README.md").read_text().split("---\n")[1])
    assert (fields["license"], fields["language"], fields["pipeline_tag"]) == ("cc-by-4.0", "en", "image-to-text")
    [result] = fields["model-index"][0]["results"]
    accuracy = json.loads(results.read_text())["sets"]["mine"]["word_accuracy"]
    assert result["metrics"][0]["value"] == round(100 * accuracy, 2)
    card = (saved / "README.md").read_text()
    assert 'pipeline("image-to-text", "me/reader", trust_remote_code=True)' in card
    assert "characters and the space: `` 0123" in card
    assert "| mine |" in card and "{{" not in card
    assert "## Training" not in card


def test_a_dry_run_uploads_nothing(saved, hub, capsys, monkeypatch):
    """Here by relative paths, from where it looks for a folder in another process."""
    monkeypatch.chdir(saved.parent)
    draw("abc").save("sample.png")
    assert run(saved.name, "--license", "mit", "--sample", "sample.png", "--dry-run") == 0
    assert not hub
    assert "is ready to be published as me/reader" in capsys.readouterr().out


@pytest.mark.usefixtures("reads_nothing")
def test_a_card_that_is_there_is_kept(with_card, hub, capsys):
    card = (with_card / "README.md").read_text() + "\nMine.\n"
    (with_card / "README.md").write_text(card)
    assert run(with_card) == 0
    assert (with_card / "README.md").read_text() == card
    capsys.readouterr()
    assert run(with_card, "--license", "mit", "--language", "en") == 0, "as after a dry run"
    assert (with_card / "README.md").read_text() == card
    assert "README.md is kept: --license and --language have no effect" in capsys.readouterr().err
    assert len(hub) == 4


def evaluated(saved, folder, name="mine"):
    """A results file of the recogniser, of two images."""
    path = folder / "results.json"
    data = make_folder(folder / "data", ["ab", "cd"])
    main(["evaluate", "--model", str(saved), f"{name}={data}", "--output", str(path)])
    return path


@pytest.mark.usefixtures("reads_nothing")
def test_figures_of_other_weights_are_refused(saved, hub, tmp_path, capsys):
    path = evaluated(saved, tmp_path)
    content = json.loads(path.read_text())
    assert content["weights_sha256"] == hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest()
    words = ["--license", "mit", "--results", str(path), "--dry-run"]
    path.write_text(json.dumps({**content, "weights_sha256": "0" * 64}))
    assert run(saved, *words) == 1
    assert "are of other weights" in capsys.readouterr().err
    assert not (saved / "README.md").exists()
    del content["weights_sha256"]
    path.write_text(json.dumps(content))
    assert run(saved, *words) == 0
    assert "does not say which weights" in capsys.readouterr().err


def test_weights_in_parts_have_a_digest_and_those_that_are_not_here_have_none(model, tmp_path):
    model.save_pretrained(tmp_path / "parts", max_shard_size="50KB")
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    digest = weights_digest(str(tmp_path / "parts"))
    assert len(digest) == 64
    (part := sorted((tmp_path / "parts").glob("*.safetensors"))[-1]).write_bytes(part.read_bytes()[:-1] + b"x")
    assert weights_digest(str(tmp_path / "parts")) not in (digest, None)
    assert weights_digest("nobody/nothing") is None


@pytest.mark.usefixtures("reads_nothing")
def test_a_part_of_a_benchmark_is_no_result_of_the_benchmark(saved, hub, tmp_path, capsys):
    path = evaluated(saved, tmp_path, "SVT")
    assert run(saved, "--license", "mit", "--results", str(path), "--dry-run") == 0
    _, metadata, text = (saved / "README.md").read_text().split("---\n", 2)
    assert "model-index" not in yaml.safe_load(metadata)
    assert "SVT has 2 samples, but the benchmark has 647" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model": "nano", "steps": 5}', "is not what svtrv2 evaluate writes"),
        ("[1]", "is not what svtrv2 evaluate writes"),
        ('{"sets": [1]}', "is not what svtrv2 evaluate writes"),
        ("{", "is no JSON"),
        (b"\xff", "is no JSON"),
    ],
)
def test_what_are_no_results(saved, hub, tmp_path, capsys, content, message):
    path = tmp_path / "run.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run(saved, "--license", "mit", "--results", str(path)) == 1
    assert message in capsys.readouterr().err
    assert not hub


@pytest.mark.parametrize(
    ("spoil", "message"),
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
        (lambda folder: (folder / "README.md").write_text("---\nlicense: mit\n---\n"), "tells no pipeline_tag"),
    ],
)
def test_what_is_not_ready_is_told_and_stays(with_card, hub, capsys, spoil, message):
    spoil(with_card)
    assert run(with_card) == 1
    assert message in capsys.readouterr().err
    assert not hub


def test_what_it_is_called_with(saved, hub, tmp_path, capsys):
    assert main(["publish", str(tmp_path / "none"), "--repo", "me/reader"]) == 1
    assert "There is no folder" in capsys.readouterr().err
    assert main(["publish", str(saved), "--repo", "reader"]) == 1
    assert "must be OWNER/NAME" in capsys.readouterr().err
    assert main(["publish", str(saved), "--repo", "me/x y", "--license", "mit", "--dry-run"]) == 1
    assert "--repo 'me/x y' is no name on the Hub" in capsys.readouterr().err
    for license in ("Apache-2.0", "apache 2.0", " "):
        assert run(saved, "--license", license, "--dry-run") == 1
        assert "lower case" in capsys.readouterr().err
        assert not (saved / "README.md").exists()
    assert run(saved) == 1
    assert "needs the license" in capsys.readouterr().err


@pytest.mark.usefixtures("reads_nothing")
def test_the_token_is_never_told(saved, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert run(saved, "--license", "mit") == 1  # there is no network
    told = capsys.readouterr()
    assert "hf_secret" not in told.out + told.err
    assert "me/reader" in told.err


def test_a_published_folder_is_found_by_its_name(with_card, tmp_path):
    """Put where the Hub's cache would have it, and read in a fresh process, with this package and without."""
    revision = "0" * 40
    repository = tmp_path / "hub" / "models--me--reader"
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for path in with_card.iterdir():
        if path.name not in check.left_behind(with_card):
            (snapshot / path.name).write_bytes(path.read_bytes())
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
    told = set()
    for program in programs.values():
        command = [sys.executable, "-c", f"{program}; print(read('word.png')[0]['generated_text'])"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        told.add(done.stdout.strip().splitlines()[-1])
    assert len(told) == 1


MARK = "import os; open(os.environ['RAN'], 'w').write('ran')\n"


@pytest.mark.parametrize("sampled", [True, False])
def test_only_the_package_s_code_is_run_and_published(saved, hub, tmp_path, capsys, monkeypatch, sampled):
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    own = (saved / "modeling_svtrv2.py").read_bytes()
    tampered = own + MARK.encode()
    (saved / "modeling_svtrv2.py").write_bytes(tampered)
    (saved / "other_svtrv2.py").write_text(MARK)
    if not sampled:
        read_nothing(monkeypatch)
    assert run(saved, "--license", "mit") == 0
    assert "modeling_svtrv2.py, other_svtrv2.py" in (err := capsys.readouterr().err)
    assert "Not published: other_svtrv2.py" in err
    assert not (tmp_path / "ran").exists()
    sent = hub[1][2]["sent"]
    assert sent["modeling_svtrv2.py"] == own
    assert "other_svtrv2.py" not in sent
    assert (saved / "modeling_svtrv2.py").read_bytes() == tampered, "the folder stays as it is"


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
        ("config.json", {"auto_map": {"AutoConfig": "modeling_svtrv2.os"}}),
        ("tokenizer_config.json", {"chat_template": "{{ 1 }}"}),
        ("processor_config.json", {"auto_map": {"AutoProcessor": "evil.Processor"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
    ],
)
def test_references_to_other_code_are_refused(with_card, hub, capsys, monkeypatch, file, change):
    path = with_card / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert run(with_card) == 1
    assert f"{file} names code that is not this package's" in capsys.readouterr().err
    assert not hub


@pytest.mark.usefixtures("reads_nothing")
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
    with (with_card / file).open("a") as stream:
        stream.write(text)
    assert run(with_card) == 1
    assert f"{file} holds what looks like a token" in capsys.readouterr().err
    assert not hub


@pytest.mark.usefixtures("reads_nothing")
def test_files_outside_the_folder_are_not_published_through_links(with_card, hub, tmp_path, capsys):
    draw("secret").save(tmp_path / "elsewhere.png")
    (with_card / "picture.png").symlink_to(tmp_path / "elsewhere.png")
    assert run(with_card) == 1
    assert "has links to files outside of it: picture.png" in capsys.readouterr().err
    assert not hub


def test_the_other_process_gets_no_secrets(with_card, monkeypatch):
    seen = {}

    def record(command, env, **options):
        seen.update(env)
        return SimpleNamespace(returncode=1, stderr="stop", stdout="")

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("WANDB_API_KEY", "a1b2c3d4e5f6")
    monkeypatch.setattr(check.subprocess, "run", record)
    assert check.check_folder(with_card) == ["it does not load where svtrv2_hf is not installed: stop"]
    assert "PATH" in seen
    assert not seen.keys() & {"HF_TOKEN", "WANDB_API_KEY"}


@pytest.mark.usefixtures("reads_nothing")
def test_other_files_stay_behind(with_card, hub, capsys):
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


@pytest.mark.usefixtures("reads_nothing")
def test_secrets_in_metadata_are_not_published(with_card, hub, capsys):
    texts = PngInfo()
    texts.add_text("Comment", f"made with {TOKEN}")
    draw("a").save(with_card / "picture.png", pnginfo=texts)
    weights = load_file(with_card / "model.safetensors")
    save_file(weights, with_card / "model.safetensors", metadata={"format": "pt", "note": TOKEN})
    assert run(with_card) == 1
    errors = capsys.readouterr().err
    assert "picture.png holds what looks like a token, a password or a credential, in its metadata" in errors
    assert "model.safetensors holds what looks like a token" in errors
    assert not hub


def test_no_card_is_written_through_a_link(saved, hub, tmp_path, capsys):
    (saved / "README.md").symlink_to(tmp_path / "elsewhere.md")
    assert run(saved, "--license", "mit") == 1
    assert "links to files outside" in capsys.readouterr().err
    assert not (tmp_path / "elsewhere.md").exists()
