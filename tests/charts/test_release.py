"""What a release does: requirements, endpoint, runs, secrets, placement, notes."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from equipoise.config import RunConfig, validate_config
from equipoise_serving.api_keys import StoredKey
from equipoise_serving.app import ApplicationArgs

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]
Find = Callable[..., Manifest]

CHART = Path(__file__).resolve().parents[2] / "charts" / "equipoise"


# Requirements


@pytest.mark.parametrize(
    ("name", "kind"), [("default", "RayService"), ("run", "RayJob"), ("gpu", "RayService")]
)
def test_without_kuberay_the_install_stops_with_one_sentence(
    helm: Callable[..., Any], name: str, kind: str
) -> None:
    done = helm("template", "eq", CHART, "-f", CHART / "ci" / f"{name}-values.yaml")
    assert done.returncode != 0
    [line] = [line for line in done.stderr.splitlines() if "this cluster does not know" in line]
    assert f"ray.io/v1 {kind}: install the KubeRay operator 1.7.0 first, by `helm repo add" in line


IMPOSSIBLE = [
    ("run", 'storage.kind="s3"', "run.enabled: a run folder has to be on a volume"),
    ("gpu", 'kueue.queue="q"', "kueue.queue: Kueue admits no cluster that scales by itself"),
    ("run", "run.enabled=false", "kueue.queue: research has nothing to queue; set jobs.enabled or"),
    ("run", 'kueue.queue=""', "kueue.priorityClass: batch has no effect without a queue; name one in"),
    ("gpu", 'gcsFaultTolerance.redis.address=""', "gcsFaultTolerance.redis.address: is empty"),
    ("run", 'gcsFaultTolerance.backend="rocksdb"', "gcsFaultTolerance.backend: rocksdb has no effect"),
    ("s3", "serving.enabled=false", "ingress.enabled: there is no endpoint to lead to"),
    ("default", "serving.workerGroups.cpu=null", "serving.workerGroups: every group is null"),
    ("kind", 'storage.kind="none"', "serving.bundle: /equipoise/runs/demo/bundle is a path"),
]


@pytest.mark.parametrize(("name", "value", "said"), IMPOSSIBLE)
def test_values_that_contradict_each_other_are_refused(
    helm: Callable[..., Any], name: str, value: str, said: str
) -> None:
    kinds = [f"--api-versions=ray.io/v1/{kind}" for kind in ("RayService", "RayCluster", "RayJob")]
    values = CHART / "ci" / f"{name}-values.yaml"
    done = helm("template", "eq", CHART, "-f", values, "--set-json", value, *kinds)
    assert done.returncode != 0
    assert said in done.stderr


def test_who_submits_may_fetch_results_out_of_pods_only_where_that_is_said(render: Render) -> None:
    people = 'submitters=[{"kind": "Group", "name": "people"}]'

    def rights(*options: str) -> set[tuple[str, str]]:
        [role] = [
            each
            for each in render("default", [people, *options])
            if each["kind"] == "Role" and each["metadata"]["name"].endswith("-submitter")
        ]
        return {
            (resource, verb)
            for rule in role["rules"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    assert rights("submittersMayExec=true") - rights() == {
        ("pods/exec", "get"),
        ("pods/exec", "create"),
    }


# Endpoint


@pytest.mark.parametrize("name", ["default", "kind", "s3", "gpu"])
def test_the_application_builder_takes_what_the_chart_gives_it(
    render: Render, serve_config: Callable[..., Manifest], name: str
) -> None:
    [application] = serve_config(render(name))["applications"]
    assert application["import_path"] == "equipoise_serving.app:build"
    given = validate_config(ApplicationArgs, application["args"], where="args")
    assert (given.serving.host, given.serving.port) == ("0.0.0.0", 8000)


def test_the_applications_args_are_those_of_the_values(
    render: Render, serve_config: Callable[..., Manifest]
) -> None:
    [application] = serve_config(render("s3"))["applications"]
    given = validate_config(ApplicationArgs, application["args"], where="args")
    assert (given.bundle, given.model_name) == ("s3://models/intents/bundle", "intents")
    assert (given.serving.replicas, given.serving.cores_per_replica) == (4, 2)
    # Helm reads numbers as floats; one of this size must not come out as 2.097152e+06.
    assert '"max_body_bytes":2097152' in json.dumps(application["args"], separators=(",", ":"))


def test_an_upgrade_brings_up_the_new_cluster_first(render: Render, find: Find) -> None:
    service = find(render(), "RayService")["spec"]
    assert service["upgradeStrategy"] == {"type": "NewCluster"}
    assert service["rayClusterDeletionDelaySeconds"] == 60


@pytest.mark.parametrize("name", ["default", "kind", "s3", "gpu", "run"])
def test_every_ray_process_serves_through_haproxy_and_asks_for_the_token(
    render: Render, templates: Callable[[Manifest], list[Manifest]], name: str
) -> None:
    for each in render(name):
        if not each["apiVersion"].startswith("ray.io/"):
            continue
        spec = each["spec"]
        cluster = spec.get("rayClusterConfig") or spec.get("rayClusterSpec") or spec
        assert cluster["authOptions"]["mode"] == "token"
        assert cluster["authOptions"]["secretName"]
        for pod in templates(each):
            container = pod["spec"]["containers"][0]
            env = {entry["name"]: entry.get("value") for entry in container["env"]}
            # KubeRay sets these from authOptions and refuses to be contradicted.
            assert not env.keys() & {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ADDRESS"}
            if container["name"] != "ray-job-submitter":
                assert env["RAY_SERVE_ENABLE_HA_PROXY"] == env["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"


def test_traffic_goes_to_workers_and_nothing_runs_on_the_head(render: Render, find: Find) -> None:
    service = find(render(), "RayService")["spec"]
    assert service["excludeHeadPodFromServeSvc"] is True
    assert service["rayClusterConfig"]["headGroupSpec"]["resources"] == {"CPU": "0"}
    # KubeRay refuses a name for the head's service in a RayService.
    assert "headService" not in service["rayClusterConfig"]["headGroupSpec"]


@pytest.mark.parametrize("name", ["default", "kind", "s3", "gpu", "run"])
def test_rays_pods_leave_the_label_to_kuberay_that_its_services_select_by(render: Render, name: str) -> None:
    for each in render(name):
        spec = each.get("spec", {})
        cluster = spec.get("rayClusterConfig") or spec.get("rayClusterSpec") or spec
        if "headGroupSpec" in cluster:
            # With another value, NAME-head-svc of a RayService or RayJob would select no pod.
            labels = cluster["headGroupSpec"]["template"]["metadata"]["labels"]
            assert labels.keys().isdisjoint({"app.kubernetes.io/name", "app.kubernetes.io/created-by"})


def test_tls_stands_before_the_endpoint(render: Render, find: Find) -> None:
    ingress = find(render("s3"), "Ingress")["spec"]
    assert ingress["tls"] == [{"hosts": ["intents.example.com"], "secretName": "intents-tls"}]
    [rule] = ingress["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "intents-serve-svc", "port": {"number": 8000}}


# Workers


def groups(cluster: Manifest) -> dict[str, Manifest]:
    return {group["groupName"]: group for group in cluster["workerGroupSpecs"]}


def test_gpu_and_spot_groups_go_where_their_nodes_are(render: Render, find: Find) -> None:
    found = groups(find(render("gpu"), "RayService")["spec"]["rayClusterConfig"])
    assert found.keys() == {"l4"}, "null removes a group"
    pod = found["l4"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "equipoise:0.1.0-gpu"
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-accelerator": "nvidia-l4",
        "cloud.google.com/gke-spot": "true",
    }
    assert [each["key"] for each in pod["tolerations"]] == [
        "dedicated",
        "nvidia.com/gpu",
        "cloud.google.com/gke-spot",
    ]
    assert pod["priorityClassName"] == "high"
    assert found["l4"]["labels"] == {"ray.io/market-type": "spot"}
    env = [entry["name"] for entry in pod["containers"][0]["env"]]
    assert "DS_ACCELERATOR" not in env


def test_cpu_groups_keep_deepspeed_off_accelerators(render: Render, find: Find) -> None:
    found = groups(find(render(), "RayService")["spec"]["rayClusterConfig"])
    env = found["cpu"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "DS_ACCELERATOR", "value": "cpu"} in env


def test_a_group_may_leave_out_what_has_a_default(render: Render, find: Find) -> None:
    spot = groups(find(render("s3"), "RayService")["spec"]["rayClusterConfig"])["spot"]
    assert (spot["replicas"], spot["minReplicas"], spot["maxReplicas"]) == (0, 0, 16)
    assert spot["template"]["spec"]["nodeSelector"] == {"karpenter.sh/capacity-type": "spot"}


def test_the_autoscaler_keeps_within_each_groups_bounds(render: Render, find: Find) -> None:
    cluster = find(render("s3"), "RayService")["spec"]["rayClusterConfig"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_workers_spread_over_zones_by_their_own_group(render: Render, find: Find) -> None:
    group = groups(find(render(), "RayService")["spec"]["rayClusterConfig"])["cpu"]
    spread = group["template"]["spec"]["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spread] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]
    labels = group["template"]["metadata"]["labels"] | {"ray.io/group": "cpu"}
    assert all(each["labelSelector"]["matchLabels"].items() <= labels.items() for each in spread)


def test_a_timing_has_its_machine_to_itself(render: Render, find: Find) -> None:
    from equipoise.ray_runtime import MEASURED_SLOT

    for group in find(render("run"), "RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["resources"] == {MEASURED_SLOT: "1"}


def test_a_lost_head_finds_its_state_again(render: Render, find: Find) -> None:
    cluster = find(render("gpu"), "RayService")["spec"]["rayClusterConfig"]
    assert cluster["gcsFaultToleranceOptions"] == {
        "backend": "redis",
        "redisAddress": "redis.redis:6379",
        "redisPassword": {"valueFrom": {"secretKeyRef": {"name": "redis-password", "key": "password"}}},
    }


def test_a_run_starts_again_instead_and_keeps_no_heads_state(render: Render, find: Find) -> None:
    objects = render("run", ["serving.enabled=true", 'gcsFaultTolerance.backend="rocksdb"'])
    service = find(objects, "RayService")["spec"]["rayClusterConfig"]
    assert service["gcsFaultToleranceOptions"] == {"backend": "rocksdb", "storage": {"size": "1Gi"}}
    job = find(objects, "RayJob")["spec"]
    assert "gcsFaultToleranceOptions" not in job["rayClusterSpec"]
    assert job["backoffLimit"] == 1


# Runs


def test_a_run_carries_its_config_and_kueue_admits_it(render: Render, find: Find) -> None:
    objects = render("run")
    job, config = (
        find(objects, "RayJob"),
        find(objects, "ConfigMap", find(objects, "RayJob")["metadata"]["name"]),
    )
    values = yaml.safe_load(config["data"]["run.yaml"])
    assert validate_config(RunConfig, values, where="run.yaml").name == "tickets"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "batch"
    spec = job["spec"]
    # What Kueue asks of a RayJob.
    assert spec["shutdownAfterJobFinishes"] is True
    assert "clusterSelector" not in spec
    assert "enableInTreeAutoscaling" not in spec["rayClusterSpec"]
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in head["containers"][0]["volumeMounts"]}
    assert f"-f {mounts['run-config']}/run.yaml --out {mounts['data']}/runs/tickets" in spec["entrypoint"]


def test_a_changed_config_is_another_run(render: Render, find: Find) -> None:
    first = find(render("run"), "RayJob")["metadata"]["name"]
    assert find(render("run", ["run.retries=5"]), "RayJob")["metadata"]["name"] == first
    assert find(render("run", ["run.config.seed=14"]), "RayJob")["metadata"]["name"] != first


# Secrets and storage


def test_keys_and_volumes_outlive_the_release(render: Render) -> None:
    for each in [*render(), *render("run")]:
        if each["kind"] in ("Secret", "PersistentVolumeClaim"):
            assert each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_a_claim_of_ones_own_is_used_and_none_is_made(
    render: Render, templates: Callable[[Manifest], list[Manifest]]
) -> None:
    def claims(objects: list[Manifest]) -> tuple[set[str], set[str]]:
        made = {each["metadata"]["name"] for each in objects if each["kind"] == "PersistentVolumeClaim"}
        used = {
            volume["persistentVolumeClaim"]["claimName"]
            for each in objects
            for pod in templates(each)
            for volume in pod["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        }
        return made, used

    both = ["serving.enabled=true", "jobs.enabled=true", "jobs.autoscaler.enabled=false"]
    tracking = "eq-equipoise-mlflow"
    made, used = claims(render("run", both))
    assert made == used == {"eq-equipoise-data", tracking}
    made, used = claims(render("run", [*both, 'storage.pvc.existingClaim="shared"']))
    assert (made, used) == ({tracking}, {"shared", tracking})


@pytest.mark.parametrize(("override", "stem"), [("models", "eq-models"), ("eq", "eq")])
def test_another_name_is_in_every_name_and_in_no_label_that_selects(
    render: Render, override: str, stem: str
) -> None:
    """A release whose name holds the other one is not called twice."""
    usual, renamed = (
        render("s3", ['fullnameOverride=""']),
        render("s3", ['fullnameOverride=""', f'nameOverride="{override}"']),
    )
    names = [(each["kind"], each["metadata"]["name"]) for each in renamed]
    assert names == [(each["kind"], each["metadata"]["name"].replace("eq-equipoise", stem)) for each in usual]
    # Whatever names another object follows; what selects pods stays, or an upgrade could not change it.
    text = yaml.safe_dump([each for each in renamed if each["kind"] != "Secret"])
    known = yaml.safe_dump([each for each in usual if each["kind"] != "Secret"])
    assert "eq-equipoise" not in text
    assert text.count("app.kubernetes.io/part-of: equipoise") == known.count(
        "app.kubernetes.io/part-of: equipoise"
    )


def test_a_secret_of_ones_own_is_used_and_none_is_made(render: Render, find: Find) -> None:
    objects = render("gpu")
    assert not [each for each in objects if each["kind"] == "Secret"]
    for kind, key in (("RayService", "rayClusterConfig"), ("RayCluster", None)):
        spec = find(objects, kind)["spec"]
        auth = (spec[key] if key else spec)["authOptions"]
        assert auth == {"mode": "token", "secretName": "shared-ray-token"}


def test_an_api_key_is_made_and_the_endpoint_holds_its_hash_alone(
    render: Render, find: Find, serve_config: Callable[..., Manifest]
) -> None:
    objects = render()
    secret = find(objects, "Secret", "api-keys")
    key = base64.b64decode(secret["data"]["key"]).decode()
    [stored] = json.loads(base64.b64decode(secret["data"]["keys.json"]))["keys"]
    assert StoredKey.model_validate(stored).sha256 == hashlib.sha256(key.encode()).hexdigest()
    assert len(key) > 40

    [application] = serve_config(objects)["applications"]
    cluster = find(objects, "RayService")["spec"]["rayClusterConfig"]
    for template in (cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]):
        [volume] = [each for each in template["spec"]["volumes"] if each["name"] == "api-keys"]
        assert volume["secret"]["secretName"] == secret["metadata"]["name"]
        assert volume["secret"]["items"] == [{"key": "keys.json", "path": "keys.json"}]
        mounts = {
            each["name"]: each["mountPath"] for each in template["spec"]["containers"][0]["volumeMounts"]
        }
        assert application["args"]["serving"]["api_keys"] == f"{mounts['api-keys']}/keys.json"


def test_no_pod_but_that_of_the_test_holds_a_key_in_the_clear(
    render: Render, templates: Callable[[Manifest], list[Manifest]]
) -> None:
    holders = [
        each["kind"]
        for each in render()
        for pod in templates(each)
        for volume in pod["spec"]["volumes"]
        if "secret" in volume and {"key": "key", "path": "key"} in volume["secret"].get("items", [])
    ]
    assert holders == ["Pod"]


def test_bucket_keys_come_from_a_secret_and_are_nowhere_in_the_clear(render: Render, find: Find) -> None:
    objects = render("s3")
    for kind, path in (("RayService", None), ("Deployment", "exporter")):
        each = find(objects, kind, path or "")
        text = json.dumps(each)
        assert '"secretKeyRef": {"name": "bucket-keys", "key": "AWS_SECRET_ACCESS_KEY"}' in text
        assert '"AWS_ENDPOINT_URL", "value": "http://minio.minio:9000"' in text


# Exporter


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("default", "/equipoise/runs/run"),
        ("kind", "/equipoise/runs/demo"),
        ("s3", "s3://models/intents"),
        ("run", "/equipoise/runs/tickets"),
    ],
)
def test_the_exporter_reads_the_run_that_the_dollars_are_of(
    render: Render, find: Find, name: str, run: str
) -> None:
    [container] = find(render(name), "Deployment", "exporter")["spec"]["template"]["spec"]["containers"]
    assert container["command"][:4] == ["equipoise", "exporter", run, "--wait"]


def test_the_exporters_command_line_is_one_that_it_knows(render: Render, find: Find) -> None:
    import typer

    from equipoise.cli.main import app

    [container] = find(render(), "Deployment", "exporter")["spec"]["template"]["spec"]["containers"]
    group: Any = typer.main.get_command(app)
    options = {option for each in group.commands["exporter"].params for option in each.opts}
    given = {word.partition("=")[0] for word in container["command"] if word.startswith("--")}
    assert given <= options


def test_the_exporter_finds_ray_behind_a_name_with_an_address_for_each_pod(
    render: Render, find: Find
) -> None:
    objects = render()
    service = find(objects, "Service", "ray-metrics")
    assert service["spec"]["clusterIP"] == "None"
    [container] = find(objects, "Deployment", "exporter")["spec"]["template"]["spec"]["containers"]
    assert f"--ray-metrics-url=dns+http://{service['metadata']['name']}:8080/metrics" in container["command"]
    cluster = find(objects, "RayService")["spec"]["rayClusterConfig"]
    for template in (cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]):
        assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()


# Eviction


def test_a_budget_is_made_only_where_it_allows_an_eviction(render: Render, find: Find) -> None:
    assert not [each for each in render() if each["kind"] == "PodDisruptionBudget"]
    budget = find(render("s3"), "PodDisruptionBudget")["spec"]
    assert budget["minAvailable"] == 1
    assert budget["selector"]["matchLabels"]["ray.io/node-type"] == "worker"


# Test and notes


def test_helm_test_asks_for_a_prediction_and_the_metrics_that_bill_it(render: Render, find: Find) -> None:
    [container] = find(render("kind"), "Pod", "-test")["spec"]["containers"]
    assert container["command"][:3] == ["python", "-m", "equipoise.pipeline.endpoint_check"]
    assert container["command"][3:] == [
        "--url=http://eq-equipoise-serve-svc:8000",
        "--text=a text to classify",
        "--metrics-url=http://eq-equipoise-exporter:9464/metrics",
        "--key-file=/etc/equipoise/keys/key",
    ]
