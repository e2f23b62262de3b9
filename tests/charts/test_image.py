"""The image's recipe: what it copies is there, what it installs is locked, and it does not run as root."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE = REPOSITORY / "k8s" / "image"
DOCKERFILE = (IMAGE / "Dockerfile").read_text(encoding="utf-8")
INSTALL = (IMAGE / "install.sh").read_text(encoding="utf-8")
TARGETS = ("cpu", "gpu")


def instructions(target: str) -> list[tuple[str, str]]:
    """Instructions of a target, lines joined."""
    joined = re.sub(r"\\\n\s*", " ", DOCKERFILE)
    stage = re.split(r"^FROM ", joined, flags=re.MULTILINE)
    [found] = [each for each in stage if each.splitlines()[0].endswith(f" AS {target}")]
    lines = [line for line in found.splitlines()[1:] if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def locked() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


@pytest.mark.parametrize("target", TARGETS)
def test_every_path_that_is_copied_exists_and_reaches_the_builder(target: str) -> None:
    ignore = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = [line.removeprefix("!") for line in ignore if line.startswith("!")]
    copied = [path for name, words in instructions(target) if name == "COPY" for path in words.split()[:-1]]
    assert len(copied) == 8
    for path in copied:
        assert (REPOSITORY / path).exists(), path
        assert path in let_in, path
    assert set(let_in) == set(copied)


def test_what_the_build_reads_is_copied() -> None:
    copied = {path for name, words in instructions("cpu") if name == "COPY" for path in words.split()[:-1]}
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    folders = re.findall(r'^"?[\w.]+"? = "((?:platform|serving|jobs)/[\w/]+)"', project, flags=re.MULTILINE)
    assert len(folders) >= 3
    assert {folder.partition("/")[0] for folder in folders} <= copied
    assert {"README.md", "LICENSE", "pyproject.toml"} <= copied


@pytest.mark.parametrize("target", TARGETS)
def test_it_is_built_from_the_official_image_of_the_locked_ray(target: str) -> None:
    [version] = re.findall(r"^ARG RAY_VERSION=(.+)$", DOCKERFILE, flags=re.MULTILINE)
    assert version == locked()["ray"]
    [argument] = re.findall(rf"^FROM \$\{{(\w+)\}} AS {target}$", DOCKERFILE, flags=re.MULTILINE)
    [base] = re.findall(rf"^ARG {argument}=(.+)$", DOCKERFILE, flags=re.MULTILINE)
    assert base.startswith("rayproject/ray:${RAY_VERSION}-py311-")
    # An argument of a build is known above the first FROM alone, where both bases take it.
    assert DOCKERFILE.index(f"ARG {argument}=") < DOCKERFILE.index("\nFROM ")


@pytest.mark.parametrize("target", TARGETS)
def test_the_compiler_can_be_pinned(target: str, tmp_path: Path) -> None:
    assert ("ARG", "GXX=g++") in instructions(target)
    [line] = [line for line in INSTALL.splitlines() if line.startswith("apt-get install")]
    for given, installed in ((None, "g++"), ("g++=4:1", "g++=4:1")):
        script = f"apt-get() {{ printf '%s\\n' \"$@\"; }}\n{line}"
        environment = {"PATH": "/usr/bin:/bin", **({"GXX": given} if given else {})}
        done = subprocess.run(
            ["bash", "-euc", script], env=environment, capture_output=True, text=True, timeout=10
        )
        assert done.stdout.splitlines()[-1] == installed


def test_every_package_is_installed_under_the_lock() -> None:
    wanted = re.findall(r"^install (.+)$", INSTALL, flags=re.MULTILINE)
    names = {word for line in wanted for word in line.split() if not word.startswith("-") and word != "."}
    assert {"torch", "deepspeed"} <= names
    assert names - locked().keys() == set()
    assert "-c constraints.txt" in INSTALL
    assert not re.search(r"pip install(?!.*-c constraints\.txt)", INSTALL)
    # An isolated build would fetch what the lock does not hold.
    assert all("--no-build-isolation" in line for line in wanted if line.endswith((" .", " deepspeed")))


def test_every_dependency_of_the_project_is_locked() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    blocks = re.findall(
        r"^(?:dependencies|dev|image) = \[$(.+?)^\]$", project, flags=re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == 3
    names = [name for block in blocks for name in re.findall(r'^\s*"([A-Za-z0-9-]+)', block, re.MULTILINE)]
    assert len(names) > 30
    assert {name.lower() for name in names} - locked().keys() == set()


@pytest.mark.parametrize("target", TARGETS)
def test_it_runs_as_the_user_that_the_pods_name(target: str) -> None:
    users = [words for name, words in instructions(target) if name == "USER"]
    assert users[-1] == "1000"
    last_root = max(index for index, each in enumerate(instructions(target)) if each == ("USER", "root"))
    assert ("RUN", "bash /opt/equipoise/install.sh") in instructions(target)[last_root:]


@pytest.mark.parametrize(
    ("target", "ops"), [("cpu", {"deepspeed_shm_comm"}), ("gpu", {"fused_adam", "cpu_adam"})]
)
def test_deepspeeds_ops_are_built_in(target: str, ops: set[str]) -> None:
    """By the variables that DeepSpeed's own builders read, and checked at the end of the installation."""
    spec = importlib.util.find_spec("deepspeed")
    assert spec is not None
    assert spec.origin is not None
    known: dict[str, str] = {}
    for file in (Path(spec.origin).parent / "ops" / "op_builder").rglob("*.py"):
        pairs = re.findall(
            r'BUILD_VAR = ["\'](\w+)["\']\s+NAME = ["\'](\w+)["\']', file.read_text(encoding="utf-8")
        )
        known |= dict(pairs)
    env = " ".join(words for name, words in instructions(target) if name == "ENV")
    built = {known[variable] for variable in re.findall(r"\b(DS_BUILD_\w+)=1", env)}
    assert built == ops
    checked = re.search(rf'"{"cpu" if target == "cpu" else "cuda"}": {{([^}}]+)}}', INSTALL)
    assert checked is not None
    assert set(re.findall(r'"(\w+)"', checked.group(1))) == ops


def test_the_installation_script_is_bash() -> None:
    script = IMAGE / "install.sh"
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, timeout=10)
    assert done.returncode == 0, done.stderr
