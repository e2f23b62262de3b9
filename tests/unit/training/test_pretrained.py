from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from transformers import GPT2LMHeadModel

from equipoise.config.model import ModelConfig
from equipoise.errors import ModelError
from equipoise.training.pretrained import resolve_pretrained

FILES = ("config.json", "model.safetensors", "tokenizer.json")


def resolve(source: str) -> Path:
    return resolve_pretrained(ModelConfig(teacher=source), FILES)


def test_a_folder_with_everything_is_itself(tiny_bert: Path) -> None:
    assert resolve(str(tiny_bert)) == tiny_bert


def test_a_sample_is_the_packages_folder(minilm: Path) -> None:
    assert resolve("sample://all-minilm-l6-v2") == minilm


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        resolve(str(tmp_path / "absent"))
    assert caught.value.where == "model.teacher"
    # A message shows the beginning of a long value.
    assert f"(got '{str(tmp_path)[:30]}" in str(caught.value)
    assert "hf://" in caught.value.remedy


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(tiny_bert: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"has no {name}") as caught:
        resolve(str(folder))
    assert "safetensors" in caught.value.remedy


def test_pickled_weights_are_no_weights(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        resolve(str(folder))


def test_a_name_that_no_hub_can_have_is_wrong_for_good() -> None:
    with pytest.raises(ModelError, match="no such model"):
        resolve("hf://not a/name/at all")


ASK = """
import sys
from equipoise.config.model import ModelConfig
from equipoise.errors import EquipoiseError
from equipoise.training.pretrained import resolve_pretrained
try:
    files = ("config.json", "model.safetensors")
    print(resolve_pretrained(ModelConfig(teacher="hf://nonexistent/model"), files))
except EquipoiseError as error:
    print(error)
    sys.exit(error.exit_status)
"""


def ask_hub(tmp_path: Path, **environment: str) -> tuple[int, str, float]:
    """Exit status, answer and seconds of asking for a hub model, with an empty cache."""
    started = time.monotonic()
    found = subprocess.run(
        [sys.executable, "-c", ASK],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "HF_HOME": str(tmp_path), **environment},
    )
    assert found.stderr == ""
    return found.returncode, found.stdout, time.monotonic() - started


@pytest.mark.parametrize(
    "environment",
    [
        # Discard: nothing listens there.
        {"HF_ENDPOINT": "http://127.0.0.1:9"},
        {"HF_HUB_OFFLINE": "1"},
        {
            "HF_ENDPOINT": "http://hub.invalid",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "http_proxy": "http://127.0.0.1:9",
        },
    ],
    ids=["refused", "offline", "proxy"],
)
def test_a_hub_that_cannot_be_reached_is_worth_another_try(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    status, answer, _ = ask_hub(tmp_path, **environment)
    assert status == 6
    assert answer.count("\n") == 1
    assert "model.teacher" in answer
    assert "hf://nonexistent/model" in answer
    assert "local folder" in answer


@pytest.mark.slow
def test_a_hub_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        status, answer, seconds = ask_hub(tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert status == 6
    assert answer.count("\n") == 1
    assert seconds < 45


def test_a_cached_model_needs_no_hub(tmp_path: Path, tiny_bert: Path) -> None:
    repository = tmp_path / "hub" / "models--nonexistent--model"
    shutil.copytree(tiny_bert, repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    status, answer, _ = ask_hub(tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert status == 0
    assert Path(answer.strip()) == repository / "snapshots" / ("0" * 40)


@pytest.fixture(scope="module")
def sharded(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny GPT-2 in shards of 40 KB."""
    folder = tmp_path_factory.mktemp("sharded")
    GPT2LMHeadModel.from_pretrained(tiny_gpt2).save_pretrained(folder, max_shard_size="40KB")
    shutil.copyfile(tiny_gpt2 / "tokenizer.json", folder / "tokenizer.json")
    return folder


def test_shards_with_their_index_are_weights(sharded: Path) -> None:
    assert not (sharded / "model.safetensors").exists()
    assert len(list(sharded.glob("model-*.safetensors"))) > 2
    assert resolve(str(sharded)) == sharded


def test_a_missing_shard_is_one_line_with_its_name(sharded: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(sharded, folder)
    second = sorted(folder.glob("model-*.safetensors"))[1]
    second.unlink()
    with pytest.raises(ModelError) as caught:
        resolve(str(folder))
    assert str(caught.value).startswith(f"model.teacher: has no {second.name} of the ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": {"wte.weight": 3}}',
        '{"weight_map": {"wte.weight": "../model.safetensors"}}',
        '{"weight_map": {"wte.weight": "pytorch_model.bin"}}',
    ],
)
def test_an_index_that_names_no_shards_of_its_folder_is_refused(
    sharded: Path, tmp_path: Path, content: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(sharded, folder)
    (folder / "model.safetensors.index.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match="index") as caught:
        resolve(str(folder))
    assert "\n" not in str(caught.value)


COMMIT = "1" * 40


@pytest.fixture
def hub(sharded: Path, tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A server that speaks the hub's protocol: its address, what it keeps, files asked for."""
    kept = tmp_path / "kept"
    shutil.copytree(sharded, kept)
    (kept / "consolidated.safetensors").write_bytes(b"the same weights in another layout")
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith("/api/models/nonexistent/model"):
                names = [file.name for file in kept.iterdir()]
                if "/tree/" in path:
                    body: object = [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in names]
                else:
                    siblings = [{"rfilename": name} for name in names]
                    body = {"id": "nonexistent/model", "sha": COMMIT, "siblings": siblings}
                self.reply(json.dumps(body).encode(), {"content-type": "application/json"})
                return
            asked.append(path.rpartition("/")[2])
            content = (kept / asked[-1]).read_bytes()
            tag = hashlib.sha256(content).hexdigest()
            self.reply(content, {"etag": f'"{tag}"', "x-repo-commit": COMMIT})

        def reply(self, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(200)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", kept, asked
    server.shutdown()
    server.server_close()


ONLINE = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def test_shards_come_from_a_hub_once_and_nothing_else_does(
    hub: tuple[str, Path, list[str]], sharded: Path, tmp_path: Path
) -> None:
    endpoint, _, asked = hub
    status, answer, _ = ask_hub(tmp_path / "cache", HF_ENDPOINT=endpoint, **ONLINE)
    assert status == 0, answer
    found = Path(answer.strip())
    shards = {file.name for file in sharded.glob("*.safetensors")}
    assert {file.name for file in found.glob("*.safetensors")} == shards
    assert all((found / name).read_bytes() == (sharded / name).read_bytes() for name in shards)
    assert "consolidated.safetensors" not in asked
    status, again, _ = ask_hub(tmp_path / "cache", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0")
    assert (status, again) == (0, answer)


def test_a_shard_that_the_hub_lacks_is_named(hub: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    endpoint, kept, _ = hub
    first = sorted(kept.glob("model-*.safetensors"))[0]
    first.unlink()
    status, answer, _ = ask_hub(tmp_path / "cache", HF_ENDPOINT=endpoint, **ONLINE)
    assert status == 2
    assert answer.count("\n") == 1
    assert f"has no {first.name} of the" in answer
