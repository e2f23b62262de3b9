"""Runs submitted to a real Ray cluster of two raylets that wants a token; one is killed under a run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from equipoise.ray_runtime import free_port

# The whole story is in the setup of the first test: minutes on two cores.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

START_S = 90


class Cluster:
    """A head without CPUs and raylets of one CPU each, every one in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = uuid.uuid4().hex + uuid.uuid4().hex
        self.port, self.dashboard_port = free_port(), free_port()
        self.address = f"http://127.0.0.1:{self.dashboard_port}"
        self.temporary: list[str] = []
        self.raylets: list[subprocess.Popen[bytes]] = []
        self._start(
            "--head",
            f"--port={self.port}",
            f"--dashboard-port={self.dashboard_port}",
            "--dashboard-host=127.0.0.1",
            f"--ray-client-server-port={free_port()}",
            "--num-cpus=0",
        )

    def environment(self) -> dict[str, str]:
        """Of the cluster's processes, and so of its jobs."""
        own = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TRAIN_V2_ENABLED": "1",
            "RAY_worker_niceness": "0",
            # A lost raylet is noticed in ten seconds; in two, a busy machine's live ones are lost too.
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_failure_threshold": "20",
            # A busy machine takes longer than Serve's 5 s to start a proxy.
            "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
            "EQUIPOISE_RUNS": str(self.folder / "on-head"),
            "OMP_NUM_THREADS": "1",
            "DS_ACCELERATOR": "cpu",
        }
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        # What runs there is what was uploaded, not this checkout.
        return {**inherited, **own, "PYTHONPATH": ""}

    def add_raylet(self) -> None:
        self._start(
            f"--address=127.0.0.1:{self.port}",
            "--num-cpus=1",
            "--resources",
            json.dumps({"measured_slot": 1}),
        )

    def wait_for_raylets(self, count: int) -> None:
        """Until so many, the head's among them, have joined."""
        url = f"{self.address}/api/v0/nodes?limit=100"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self.token}"})
        deadline, alive = time.monotonic() + START_S, 0
        while alive < count:
            assert time.monotonic() < deadline, f"{alive} of {count} raylets are there"
            with urllib.request.urlopen(request, timeout=10) as response:
                nodes = json.load(response)["data"]["result"]["result"]
            alive = sum(node["state"] == "ALIVE" for node in nodes)
            time.sleep(0.5)

    def kill_raylet(self) -> None:
        """SIGKILL the newest raylet with all its workers, as a node that loses power."""
        process = self.raylets.pop()
        # Ray gives its processes groups of their own.
        for found in [*psutil.Process(process.pid).children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.kill()
        process.wait(timeout=30)

    def stop(self) -> None:
        while self.raylets:
            self.kill_raylet()
        while self.temporary:
            shutil.rmtree(self.temporary.pop(), ignore_errors=True)

    def _start(self, *arguments: str) -> None:
        ports = [f"--{name}={free_port()}" for name in ("metrics-export-port", "dashboard-agent-listen-port")]
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", *ports, *arguments]
        # A folder of its own, as each machine has: of raylets that share one, each that gets a job's
        # working directory lays it anew under the processes of the others. Sockets lie below it, whose
        # paths may have no more than 107 bytes.
        self.temporary.append(tempfile.mkdtemp(prefix="eq-"))
        command.append(f"--temp-dir={self.temporary[-1]}")
        # The range that Ray takes by default may hold one of the ports above.
        command += ["--min-worker-port=0", "--max-worker-port=0"]
        with (self.folder / f"raylet-{len(self.raylets)}.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self.environment(), start_new_session=True
            )
        self.raylets.append(process)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield found
    finally:
        found.stop()


class Commands:
    """`equipoise` as its user calls it, with the cluster's address and token around it."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        return subprocess.Popen(
            [sys.executable, "-m", "equipoise.cli.main", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={
                **inherited,
                "XDG_STATE_HOME": str(self.folder / "state"),
                "RAY_API_SERVER_ADDRESS": self.cluster.address,
                "RAY_AUTH_TOKEN": self.cluster.token,
                **environment,
            },
        )

    def __call__(
        self, *arguments: str, timeout_s: float = 300, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **environment)
        output, errors = process.communicate(timeout=timeout_s)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def jobs(self) -> dict[str, dict[str, Any]]:
        found = self("jobs", "--on", "ray", "--json")
        return {job["id"]: job for job in json.loads(found.stdout)} if found.returncode == 0 else {}


@pytest.fixture(scope="module")
def equipoise(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Commands:
    commands = Commands(cluster, tmp_path_factory.mktemp("commands"))
    deadline = time.monotonic() + START_S
    while commands("jobs", "--on", "ray").returncode != 0:
        if time.monotonic() > deadline:
            pytest.fail((cluster.folder / "raylet-0.log").read_text()[-3000:])
        time.sleep(1)
    for there in (2, 3):
        # One after the other: two that start at once take each other's sockets.
        cluster.add_raylet()
        cluster.wait_for_raylets(there)
    return commands


@pytest.fixture(scope="module")
def config(equipoise: Commands, tiny_run: Callable[..., dict[str, Any]]) -> Callable[..., Path]:
    """`config(seed=14)`: a file with a run of seconds, its training on one CPU of each raylet."""
    import yaml

    def write(**changes: Any) -> Path:
        values = tiny_run(
            search={"trials": 2, "engines": ["torch", "onnxruntime"], "precisions": ["fp32"]},
            serving={"teacher_rows": 10, "port": free_port()},
            **changes,
        )
        path = equipoise.folder / f"{uuid.uuid4().hex[:8]}.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def story(equipoise: Commands, cluster: Cluster, config: Callable[..., Path]) -> dict[str, Any]:
    """A run followed to its end; while its teacher trains, one of the two raylets is killed and replaced.

    Where only workers died with it, the run goes on; where its own controller did, it ends with status
    6, and the same command resumes it.
    """
    found: dict[str, Any] = {"file": config(), "killed": False, "statuses": [], "output": ""}
    with (cluster.folder / "submit.log").open("w", encoding="utf-8") as log:
        while found["statuses"] in ([], [6]):
            arguments = ("submit", "-f", str(found["file"]), "--on", "ray", "--out", "fetched")
            with equipoise.start(*arguments) as process:
                assert process.stdout is not None
                assert process.stderr is not None
                for line in process.stdout:
                    log.write(line)
                    log.flush()
                    found["output"] += line
                    if not found["killed"] and "rows per s" in line:
                        found["killed"] = True
                        cluster.kill_raylet()
                        cluster.add_raylet()
                found["output"] += process.stderr.read()
            found["statuses"].append(process.returncode)
    return found


def test_a_run_survives_the_death_of_a_raylet_and_its_results_come_back(
    story: dict[str, Any], equipoise: Commands
) -> None:
    assert story["killed"], story["output"]
    assert story["statuses"] in ([0], [6, 0]), story["output"]
    assert "6/6 report" in story["output"]
    fetched = equipoise.folder / "fetched"
    assert {"report.html", "choice.json", "served.json", "fetched.json"} <= {
        path.name for path in fetched.iterdir()
    }
    assert not (fetched / "teacher").exists()
    shown = equipoise("show", "fetched", "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["candidates"] == 2


def test_submitting_it_again_joins_it(story: dict[str, Any], equipoise: Commands) -> None:
    before = equipoise.jobs()
    found = equipoise("submit", "-f", str(story["file"]), "--on", "ray", "--out", "fetched", "--json")
    assert found.returncode == 0, found.stderr
    outcome = json.loads(found.stdout)
    assert (outcome["joined"], outcome["state"], outcome["created"]) == (True, "succeeded", [])
    new = equipoise.jobs().keys() - before.keys()
    assert all("-results-" in name for name in new)


def test_results_do_not_replace_what_was_not_fetched(story: dict[str, Any], equipoise: Commands) -> None:
    (equipoise.folder / "mine").mkdir()
    (equipoise.folder / "mine" / "notes").write_text("x")
    found = equipoise("submit", "-f", str(story["file"]), "--on", "ray", "--out", "mine")
    assert found.returncode == 2
    assert "was not fetched from a cluster" in found.stderr


def test_a_cancelled_run_is_started_again_as_the_next_attempt(
    story: dict[str, Any], equipoise: Commands, config: Callable[..., Path]
) -> None:
    file = config(seed=14)
    first = json.loads(equipoise("submit", "-f", str(file), "--on", "ray", "--detach", "--json").stdout)
    joined = json.loads(equipoise("submit", "-f", str(file), "--on", "ray", "--detach", "--json").stdout)
    assert (joined["id"], joined["joined"]) == (first["id"], True)
    _wait_for_state(equipoise, first["id"], "running")
    cancelled = equipoise("cancel", first["id"], "--on", "ray")
    assert cancelled.returncode == 0, cancelled.stderr
    assert first["id"] in cancelled.stdout
    _wait_for_state(equipoise, first["id"], "stopped")
    second = json.loads(equipoise("submit", "-f", str(file), "--on", "ray", "--detach", "--json").stdout)
    assert (second["id"], second["joined"]) == (f"{first['id']}-2", False)
    assert equipoise("cancel", second["id"], "--on", "ray").returncode == 0
    assert equipoise("cancel", "nothing", "--on", "ray").returncode == 2


def _wait_for_state(equipoise: Commands, job_id: str, state: str) -> None:
    deadline = time.monotonic() + 60
    while (found := equipoise.jobs()[job_id])["state"] != state:
        assert time.monotonic() < deadline, found
        time.sleep(0.5)


def test_a_fine_tuning_job_ends_with_the_teacher_and_the_whole_run_is_another_job(
    equipoise: Commands, cluster: Cluster, config: Callable[..., Path]
) -> None:
    """That the whole run goes on from there is seen in test_run_parts.py."""
    file = config(name="parts", training={"epochs": 2})
    command = ("submit", "-f", str(file), "--on", "ray", "--out", "part")
    part = equipoise(*command, "--until", "finetune")
    assert part.returncode == 0, part.stdout + part.stderr
    assert "2/6 teacher" in part.stdout
    assert "3/6 search" not in part.stdout
    assert "it ended after --until finetune; its weights stay" in part.stdout.splitlines()[-1]
    on_head = cluster.folder / "on-head" / "parts"
    assert (on_head / "teacher" / "model.safetensors").is_file()
    assert not (on_head / "candidates").exists()
    fetched = {path.name for path in (equipoise.folder / "part").iterdir()}
    assert {"config.json", "data.json", "ledger", "logs", "fetched.json"} <= fetched
    assert fetched.isdisjoint({"teacher", "bundle", "report.html"})
    shown = equipoise("show", "part", "--json")
    assert json.loads(shown.stdout)["ledger"]["reconciles"], shown.stderr
    again = json.loads(equipoise(*command, "--until", "finetune", "--detach", "--json").stdout)
    assert (again["id"].startswith("parts-finetune-"), again["joined"]) == (True, True)
    whole = again["id"].replace("-finetune", "")
    assert equipoise(*command, "--dry-run").stdout.startswith(f"job {whole}: ")
    assert whole not in equipoise.jobs()


def test_a_run_that_fails_ends_the_command_with_its_own_status_and_line(
    story: dict[str, Any], equipoise: Commands, config: Callable[..., Path]
) -> None:
    file = config(training={"batch_size": 17})
    found = equipoise("submit", "-f", str(file), "--on", "ray")
    assert found.returncode == 2
    assert "training.batch_size" in found.stderr.splitlines()[-1]
    assert "Traceback" not in found.stderr


def test_without_the_right_token_nothing_is_answered(story: dict[str, Any], equipoise: Commands) -> None:
    for token, text in (("0" * 64, "does not accept the token"), ("", "wants a token")):
        found = equipoise("jobs", "--on", "ray", RAY_AUTH_TOKEN=token, HOME=str(equipoise.folder))
        assert (found.returncode, found.stdout) == (2, "")
        assert text in found.stderr
        assert found.stderr.count("\n") == 1


def test_a_cluster_that_is_gone_is_said_and_worth_a_retry(
    story: dict[str, Any], equipoise: Commands, cluster: Cluster
) -> None:
    """The last of all: it takes the cluster away."""
    cluster.stop()
    found = equipoise("jobs", "--on", "ray")
    assert (found.returncode, found.stdout) == (6, "")
    assert "the Jobs API does not answer" in found.stderr
    assert found.stderr.count("\n") == 1
