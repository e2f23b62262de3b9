from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

READ = """
import json, sys
from equipoise.data import load_rows
from equipoise.errors import EquipoiseError
location, text, label, layout = sys.argv[1:]
try:
    rows = load_rows(location, text, label, 1000, layout)
    print(json.dumps([rows.inputs, rows.labels]))
except EquipoiseError as error:
    print(error)
    sys.exit(error.exit_status)
"""
READ_INPUTS = """
import json, sys
from equipoise.data.streams import Columns, count_rows, read_inputs
location, column = sys.argv[1:]
bad = []
shapes = [value.shape for _, value in read_inputs(location, "image", Columns(column), bad.append)]
print(json.dumps([shapes, bad, count_rows(location, "image")]))
"""
COMMIT = "1" * 40


def put_table(path: Path, table: pa.Table, features: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    info = json.dumps({"info": {"features": features}}).encode()
    parquet.write_table(table.replace_schema_metadata({b"huggingface": info}), path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a hub keeps of one data set of a single configuration, and of one of two."""
    root = tmp_path_factory.mktemp("hub")
    classes = {"text": {"dtype": "string"}, "label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}
    for part, (texts, labels) in enumerate([(["bad", "good"], [0, 1]), (["fine"], [1])]):
        table = pa.table({"text": texts, "label": labels})
        put_table(root / "org/single" / "default/train" / f"{part:04d}.parquet", table, classes)
    tags = {"tokens": {}, "ner": {"feature": {"names": ["O", "B-PER"], "_type": "ClassLabel"}}}
    for config in ("de", "en"):
        table = pa.table({"tokens": [["Anna", config]], "ner": [[1, 0]]})
        put_table(root / "org/double" / config / "test" / "0000.parquet", table, tags)
    image = io.BytesIO()
    Image.new("L", (4, 3)).save(image, "PNG")
    cells = [{"bytes": image.getvalue()}, {"bytes": b"no image"}, None]
    table = pa.table({"image": cells, "label": [0, 1, 0]})
    put_table(root / "org/images" / "default/test" / "0000.parquet", table, classes)
    return root


@pytest.fixture(scope="module")
def hub(files: Path) -> Iterator[str]:
    """A server that speaks as much of the hub's protocol as reading a data set takes."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0])
            if path.startswith("/api/datasets/"):
                asked = path.removeprefix("/api/datasets/")
                name = "/".join(asked.split("/")[:2])
                revision = asked.removeprefix(name + "/").removeprefix("revision/")
                folder = files / name
                if not folder.is_dir():
                    self.reply(404, b"{}", {"x-error-code": "RepoNotFound"})
                    return
                if revision.startswith(f"tree/{COMMIT}"):
                    entries = [
                        {"type": "file", "path": str(file.relative_to(folder)), "size": 1, "oid": "0"}
                        for file in folder.rglob("*.parquet")
                    ]
                    self.reply(200, json.dumps(entries).encode(), {"content-type": "application/json"})
                    return
                siblings = [{"rfilename": str(f.relative_to(folder))} for f in folder.rglob("*.parquet")]
                body = json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode()
                self.reply(200, body, {"content-type": "application/json"})
                return
            if not path.startswith("/datasets/"):
                self.reply(404, b"{}", {})
                return
            name, _, rest = path.removeprefix("/datasets/").partition("/resolve/")
            revision = "refs/convert/parquet" if rest.startswith("refs/") else COMMIT
            content = (files / name / rest.removeprefix(revision + "/")).read_bytes()
            tag = hashlib.sha256(content).hexdigest()
            self.reply(200, content, {"etag": f'"{tag}"', "x-repo-commit": COMMIT})

        def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def read(cache: Path, endpoint: str, *arguments: str, script: str = READ) -> tuple[int, str]:
    found = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={
            **os.environ,
            "HF_HOME": str(cache),
            "HF_ENDPOINT": endpoint,
            # Engines set it for their own process, whose children would have it too.
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "1",
        },
    )
    assert found.returncode in (0, 2, 6), found.stderr
    return found.returncode, found.stdout.strip()


def test_a_split_comes_with_the_names_of_its_classes_and_stays_in_the_cache(hub: str, tmp_path: Path) -> None:
    location = "hf://org/single/train"
    status, told = read(tmp_path, hub, location, "text", "label", "text")
    assert status == 0, told
    assert json.loads(told) == [["bad", "good", "fine"], ["neg", "pos", "pos"]]
    status, again = read(tmp_path, "http://127.0.0.1:9", location, "text", "label", "text")
    assert (status, again) == (0, told)


def test_a_configuration_is_named_where_there_are_several(hub: str, tmp_path: Path) -> None:
    status, told = read(tmp_path, hub, "hf://org/double:en/test", "tokens", "ner", "words")
    assert status == 0, told
    assert json.loads(told) == [[["Anna", "en"]], [["B-PER", "O"]]]
    status, told = read(tmp_path, hub, "hf://org/double/test", "tokens", "ner", "words")
    assert status == 2
    assert "has several configurations" in told
    assert "one of de, en" in told


def test_a_cell_that_holds_no_image_is_left_out_where_no_labels_are_wanted(hub: str, tmp_path: Path) -> None:
    location = "hf://org/images/test"
    status, told = read(tmp_path, hub, location, "image", script=READ_INPUTS)
    assert status == 0, told
    shapes, bad, count = json.loads(told)
    assert (shapes, count) == ([[3, 4]], 3)
    assert [where for where, _ in bad] == [f"{location} part 0 row {row}" for row in (2, 3)]
    assert bad[0][1].startswith("cannot be decoded")
    assert bad[1][1] == "holds no image file"
    status, told = read(tmp_path, hub, location, "image", "label", "image")
    assert status == 2
    assert f"{location} part 0 row 2: cannot be decoded" in told


@pytest.mark.parametrize(
    ("location", "fault"),
    [
        ("hf://org/single/dev", "has no such split (got 'dev'); one of train"),
        ("hf://org/absent/train", "the hub has no such data set"),
        ("hf://train", "is no data set of the hub"),
    ],
)
def test_what_the_hub_does_not_have_is_one_line(hub: str, tmp_path: Path, location: str, fault: str) -> None:
    status, told = read(tmp_path, hub, location, "text", "label", "text")
    assert status == 2
    assert fault in told
    assert "\n" not in told


def test_a_hub_that_cannot_be_reached_is_worth_another_try(tmp_path: Path) -> None:
    status, told = read(tmp_path, "http://127.0.0.1:9", "hf://org/single/train", "text", "label", "text")
    assert status == 6
    assert "cannot be reached" in told
