"""Runs of the command in process groups of their own, and the certainty that nothing of them is left."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml

if TYPE_CHECKING:
    from equipoise.bundle import Bundle

_LABELS = ("billing", "delivery", "travel")
_MARK = "EQUIPOISE_TEST_RUN"


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """An embedded Ray for the tests of a module."""
    from equipoise.ray_runtime import start_ray, stop_ray

    start_ray()
    yield
    stop_ray()


class Runs:
    """Starts `equipoise` in a process group of its own; every process it leads to carries a mark."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex

    def write(self, name: str, values: dict[str, Any]) -> Path:
        """A run config in the folder."""
        path = self.folder / name
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "equipoise.cli.main", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            start_new_session=True,
            env={
                **os.environ,
                "XDG_STATE_HOME": str(self.folder / "state"),
                "XDG_CACHE_HOME": str(self.folder / "cache"),
                _MARK: self.mark,
                **environment,
            },
        )

    def call(
        self, *arguments: str, timeout_s: float = 480, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        process = self.start(*arguments, **environment)
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill(process)
            output, errors = process.communicate()
            pytest.fail(f"the command did not end within {timeout_s} s: {errors[-2000:]}")
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def kill(self, process: subprocess.Popen[str]) -> None:
        """SIGKILL the command and everything in its process group."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)

    def left(self) -> list[psutil.Process]:
        """Processes of these runs that are still there."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(_MARK) == self.mark:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def wait_until_none_is_left(self, timeout_s: float = 30) -> list[str]:
        """Names of what is still there at the end of the time."""
        deadline = time.monotonic() + timeout_s
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return [" ".join(process.cmdline()[:3]) for process in left]

    @staticmethod
    def records(folder: Path) -> dict[str, tuple[int, bytes]]:
        """Time and bytes of each record that a run folder holds."""
        patterns = (
            "*.json",
            "*.html",
            "candidates/*.json",
            "students/*/trained.json",
            "teacher/trained.json",
        )
        return {
            str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
            for pattern in patterns
            for path in folder.glob(pattern)
        }

    def clean(self) -> None:
        """End what is left, Ray's own processes among it."""
        for process in self.left():
            process.kill()
        self.wait_until_none_is_left()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """`runs.call("run", "-f", ...)`: the command, real, in processes of its own."""
    found = Runs(tmp_path_factory.mktemp("runs"))
    yield found
    found.clean()


@pytest.fixture(scope="module")
def tiny_run(tiny_bert: Path, intent_csv: Path, intent_test_csv: Path) -> Callable[..., dict[str, Any]]:
    """`tiny_run(search={...})`: a run config on a user's own CSV whose stages take seconds."""
    values: dict[str, Any] = {
        "name": "tiny",
        "data": {"train": str(intent_csv), "test": str(intent_test_csv), "validation_share": 0.2},
        "model": {"teacher": str(tiny_bert), "max_length": 32},
        "training": {
            "workers": 2,
            "precision": "fp32",
            "epochs": 8,
            "batch_size": 16,
            "learning_rate": 3e-3,
            "freeze_embeddings": False,
        },
        "distillation": {"epochs": 4, "learning_rate": 3e-3},
        "search": {
            "trials": 5,
            "depths": [1],
            "layers": ["first"],
            "engines": ["torch", "onnxruntime"],
            "precisions": ["fp32", "int8"],
            "sampler": "random",
        },
        "measurement": {
            "robustness_rows": 12,
            "corruptions_per_row": 1,
            "gap_rows": 20,
            "resamples": 100,
            "latency_requests": 20,
            "throughput_batches": 3,
        },
        "constraints": {"max_drop": 0.5},
        "serving": {"teacher_rows": 20},
    }

    def build(**changes: Any) -> dict[str, Any]:
        return {
            key: {**values.get(key, {}), **changes.get(key, {})}
            if isinstance(values.get(key), dict)
            else changes.get(key, values.get(key))
            for key in values.keys() | changes.keys()
        }

    return build


@pytest.fixture(scope="session")
def serve_app() -> Callable[[Any], AbstractContextManager[str]]:
    """`with serve_app(gateway) as url`: an application behind uvicorn, as in a replica, without Ray."""
    import uvicorn

    from equipoise_serving.ingress import Ingress

    @contextmanager
    def serve(app: Any) -> Iterator[str]:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            config = uvicorn.Config(Ingress(app), lifespan="off", log_level="critical")  # type: ignore[arg-type]
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, args=([listener],))
            thread.start()
            try:
                while not server.started:
                    time.sleep(0.01)
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True
                thread.join(10)

    return serve


@pytest.fixture(scope="session")
def writers(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> dict[str, Bundle]:
    """The tiny Llama as a torch and as an OpenVINO bundle."""
    from equipoise.bundle import write_bundle
    from equipoise.compression.export import export_model
    from equipoise.config.model import ModelConfig
    from equipoise.tasks.text_generation import TextGeneration

    folder = tmp_path_factory.mktemp("writers")
    source = folder / "source"
    shutil.copytree(tiny_llama, source)
    task = TextGeneration.create(source, (), ModelConfig(teacher=str(source), max_length=48))
    found = {}
    for engine in ("torch", "openvino"):
        (folder / engine).mkdir()
        export_model(
            source,
            folder / engine,
            engine=engine,
            precision="fp32",
            task=task,
            calibration=[],
            onnx_cache=source / "onnx",
        )
        found[engine] = write_bundle(
            folder / f"bundle-{engine}",
            name="tiny",
            task=task,
            engine=engine,
            precision="fp32",
            model_folder=folder / engine,
            candidate={},
        )
    return found


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory, tiny_classifier: Path) -> dict[str, Bundle]:
    """The same random two-layer BERT as a torch and as an OpenVINO bundle."""
    import openvino
    import torch
    from tokenizers import Tokenizer
    from transformers import BertForSequenceClassification

    from equipoise.bundle import write_bundle
    from equipoise.tasks.text_classification import TextClassification

    class Logits(torch.nn.Module):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
        ) -> torch.Tensor:
            logits: torch.Tensor = self.model(input_ids, attention_mask, token_type_ids).logits
            return logits

    task = TextClassification(
        Tokenizer.from_file(str(tiny_classifier / "tokenizer.json")), _LABELS, max_length=64
    )
    folder = tmp_path_factory.mktemp("models")
    model = BertForSequenceClassification.from_pretrained(tiny_classifier).eval()
    model.save_pretrained(folder / "torch")
    example = {
        name: torch.from_numpy(array) for name, array in task.encode(["where is my card", "cancel"]).items()
    }
    (folder / "openvino").mkdir()
    with warnings.catch_warnings():
        # The converter traces with what torch and transformers now call deprecated.
        warnings.simplefilter("ignore")
        converted = openvino.convert_model(Logits(model), example_input=example)
    openvino.save_model(converted, folder / "openvino" / "model.xml", compress_to_fp16=False)
    return {
        engine: write_bundle(
            folder / f"bundle-{engine}",
            name="tiny",
            task=task,
            engine=engine,
            precision="fp32",
            model_folder=folder / engine,
            candidate={},
        )
        for engine in ("torch", "openvino")
    }
