from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "ray", "transformers", "deepspeed", "sklearn", "kubernetes", "onnxruntime", "openvino")


def test_the_standard_library_keeps_its_platform_module(repository: Path) -> None:
    assert not (repository / "platform" / "__init__.py").exists()


@pytest.mark.parametrize("module", ["equipoise", "equipoise.config", "equipoise.errors", "equipoise.data"])
def test_importing_it_is_light(module: str) -> None:
    check = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_replica_imports_torch_only_for_the_torch_engine(engine: str) -> None:
    check = (
        "import sys, equipoise.bundle, equipoise.engines, equipoise.tasks.text_classification, "
        f"equipoise.engines.{engine}_engine; "
        "print([name for name in ('torch', 'transformers', 'ray', 'scipy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_make_test_names_every_folder_of_tests() -> None:
    root = Path(__file__).resolve().parents[2]
    recipe = (root / "Makefile").read_text(encoding="utf-8").partition("\ntest: ")[2].partition("\n\n")[0]
    folders = {f"tests/{path.name}" for path in (root / "tests").iterdir() if any(path.glob("**/test_*.py"))}
    assert set(re.findall(r"tests/\w+", recipe)) == folders
