"""What lies in deploy/ fits the programs: metrics that exist, settings that exist, ports and users that agree."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.core import metrics
from app.core.settings import PREFIX, Settings
from tests.support.services import missing
from tests.support.stack import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
ALERTS = DEPLOY / "alerts"


def _series() -> set[str]:
    """Every name that /metrics may show, also of what was not counted yet."""
    names: set[str] = set()
    for family in metrics.REGISTRY.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(family.type, [""])
        names |= {family.name + suffix for suffix in suffixes}
    return names


def _named(text: str) -> set[str]:
    return set(re.findall(r"\bmillrace_[a-z_]+\b", text))


def test_rules_and_panels_name_metrics_that_exist() -> None:
    rules = yaml.safe_load((ALERTS / "rules.yaml").read_text())["groups"][0]["rules"]
    panels = json.loads((ALERTS / "dashboard.json").read_text())["panels"]
    asked = _named(" ".join(rule["expr"] for rule in rules))
    shown = _named(" ".join(target["expr"] for panel in panels for target in panel["targets"]))
    assert asked
    assert shown
    assert (asked | shown) - _series() == set()


def test_every_rule_says_what_to_do() -> None:
    for rule in yaml.safe_load((ALERTS / "rules.yaml").read_text())["groups"][0]["rules"]:
        assert {"summary", "action"} <= set(rule["annotations"]), rule["alert"]


def test_the_rules_fire_when_they_should() -> None:
    """Prometheus' own unit tests; every rule is in them."""
    promtool = shutil.which("promtool")
    if promtool is None:
        missing("promtool", "apt-get install prometheus")
    ran = subprocess.run(
        [promtool, "test", "rules", "rules.test.yaml"], cwd=ALERTS, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_rule_is_tested() -> None:
    tested = yaml.safe_load((ALERTS / "rules.test.yaml").read_text())["tests"]
    fired = {
        rule_test["alertname"]
        for test in tested
        for rule_test in test["alert_rule_test"]
        if rule_test.get("exp_alerts")
    }
    rules = yaml.safe_load((ALERTS / "rules.yaml").read_text())["groups"][0]["rules"]
    assert fired == {rule["alert"] for rule in rules}


def _known_settings() -> set[str]:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    return known | {f"{name}_FILE" for name in known}


def _deployed() -> list[Path]:
    return [path for path in DEPLOY.rglob("*") if path.suffix in (".yaml", ".example")] + [REPOSITORY / "Dockerfile"]


@pytest.mark.parametrize("path", _deployed(), ids=lambda path: path.name)
def test_only_settings_that_exist_are_set(path: Path) -> None:
    named = set(re.findall(r"\bMILLRACE_[A-Z0-9_]+", path.read_text()))
    # The one name that is Compose's own.
    assert named - _known_settings() - {"MILLRACE_IMAGE"} == set()


@pytest.mark.parametrize("name", ["compose.yaml", "compose.single.yaml"])
def test_containers_outlive_the_grace_period_and_own_nothing(name: str) -> None:
    services: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())["services"]
    ours = {word: one for word, one in services.items() if "millrace" in str(one["image"])}
    assert ours
    for service in services.values():
        assert "container_name" not in service
    for service in ours.values():
        assert int(service["stop_grace_period"].removesuffix("s")) >= Settings().grace_s + 30
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
    published = [word for word, one in services.items() if "ports" in one]
    assert published == (["api"] if name == "compose.yaml" else ["millrace"])


def test_in_compose_workers_read_the_volume_that_the_api_writes() -> None:
    services: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    users = {name: service for name, service in services.items() if name == "api" or name.startswith("worker")}
    assert set(users) == {"api", "worker", "worker-interactive", "worker-bulk"}
    for name, service in users.items():
        assert service["environment"]["MILLRACE_BLOB_URL"] == "${MILLRACE_BLOB_URL:-file:/originals}", name
        assert "originals:/originals" in service["volumes"], name
        assert not any(mount.startswith("/originals") for mount in service["tmpfs"]), name


def _applied(folder: Path) -> list[dict[str, Any]]:
    """Return the resources of an overlay, as kubectl applies them."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        missing("kubectl", "https://kubernetes.io/docs/tasks/tools/")
    ran = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return [item for item in yaml.safe_load_all(ran.stdout) if item]


@pytest.mark.parametrize("store", ["claim", "bucket"])
def test_in_kubernetes_workers_read_what_the_api_writes(store: str, tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "k8s", tmp_path / "k8s")
    overlay = tmp_path / "k8s" / "production"
    secrets = (overlay / "secrets.example").read_text()
    kustomization = overlay / "kustomization.yaml"
    if store == "bucket":
        secrets = secrets.replace("# MILLRACE", "MILLRACE")
        kustomization.write_text(kustomization.read_text().replace("# components", "components"))
    (overlay / "secrets.env").write_text(secrets)
    made = _applied(overlay)
    pods = {item["metadata"]["name"]: item["spec"]["template"]["spec"] for item in made if item["kind"] == "Deployment"}
    claims = [item["metadata"]["name"] for item in made if item["kind"] == "PersistentVolumeClaim"]
    settings = {name for item in made if item["kind"] in ("ConfigMap", "Secret") for name in item["data"]}
    assert "MILLRACE_BLOB_URL" in settings
    assert claims == (["originals"] if store == "claim" else [])
    for name in ("api", "worker"):
        volumes = {volume["name"]: volume for volume in pods[name]["volumes"]}
        mounts = {mount["name"] for mount in pods[name]["containers"][0]["volumeMounts"]}
        assert set(volumes) == mounts == ({"tmp", "data"} | set(claims)), name
        assert len(pods[name]["containers"]) == 1


def _overlay(folder: Path, *components: str) -> list[dict[str, Any]]:
    """Return what the example overlay applies with these components."""
    shutil.copytree(DEPLOY / "k8s", folder / "k8s")
    overlay = folder / "k8s" / "production"
    shutil.copy(overlay / "secrets.example", overlay / "secrets.env")
    kustomization = overlay / "kustomization.yaml"
    chosen = f"components: [{', '.join(f'../{name}' for name in components)}]"
    kustomization.write_text(kustomization.read_text().replace("# components: [../s3]", chosen))
    return _applied(overlay)


def test_on_openshift_no_pod_names_a_uid(tmp_path: Path) -> None:
    made = _overlay(tmp_path, "openshift")
    contexts = [
        item["spec"]["template"]["spec"]["securityContext"] for item in made if "template" in item.get("spec", {})
    ]
    assert len(contexts) == 5
    for context in contexts:
        assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    # A uid that the image does not know has group 0.
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    assert "chown 10001:0 /data /originals" in dockerfile and "chmod 0775 /data /originals" in dockerfile


def test_a_pod_monitor_scrapes_every_process(tmp_path: Path) -> None:
    made = _overlay(tmp_path, "monitoring")
    [monitor] = [item for item in made if item["kind"] == "PodMonitor"]
    [rule] = monitor["spec"]["selector"]["matchExpressions"]
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    pods = [item["spec"]["template"] for item in made if item["kind"] == "Deployment"]
    assert {pod["metadata"]["labels"][rule["key"]] for pod in pods} == set(rule["values"])
    for pod in pods:
        assert endpoint["port"] in {port["name"] for port in pod["spec"]["containers"][0]["ports"]}


def _kustomized() -> list[dict[str, Any]]:
    """What the overlay applies, as far as schemas and pods are concerned: its resources, the base's, the one patch."""
    overlay = DEPLOY / "k8s" / "production"
    kustomization = yaml.safe_load((overlay / "kustomization.yaml").read_text())
    made: list[dict[str, Any]] = []
    for resource in kustomization["resources"]:
        place = overlay / resource
        if place.is_dir():
            base = yaml.safe_load((place / "kustomization.yaml").read_text())
            files = [place / name for name in base["resources"]]
            assert {path.name for path in place.glob("*.yaml")} == {"kustomization.yaml", *base["resources"]}
        else:
            files = [place]
        made += [manifest for path in files for manifest in yaml.safe_load_all(path.read_text()) if manifest]
    for patch in kustomization["patches"]:
        matches = [
            manifest
            for manifest in made
            if (manifest["kind"], manifest["metadata"]["name"]) == (patch["target"]["kind"], patch["target"]["name"])
        ]
        assert len(matches) == 1
        assert yaml.safe_load(patch["patch"]) == [{"op": "remove", "path": "/spec/replicas"}]
        del matches[0]["spec"]["replicas"]
    return made


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_the_manifests_fit_the_schemas_of_kubernetes(version: str) -> None:
    """An old release that is still run, and a new one; strict: a misspelt field is an error."""
    made = _kustomized()
    assert {manifest["kind"] for manifest in made} >= {
        "Deployment", "Job", "Service", "PodDisruptionBudget", "NetworkPolicy", "HorizontalPodAutoscaler",
    }  # fmt: skip
    for manifest in made:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_does_not_fit() -> None:
    broken = next(manifest for manifest in _kustomized() if manifest["kind"] == "Deployment")
    broken["spec"]["template"]["spec"]["terminationGracePeriod"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.37", strict=True)


def test_pods_are_closed_and_end_in_time() -> None:
    pods = {
        manifest["metadata"]["name"]: manifest["spec"]["template"]["spec"]
        for manifest in _kustomized()
        if "template" in manifest.get("spec", {})
    }
    assert set(pods) == {"api", "worker", "relay", "scheduler", "migrate"}
    for name, pod in pods.items():
        assert pod["securityContext"]["runAsUser"] == 10001
        [container] = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"], name
        assert container["args"] == [name]
        assert name == "migrate" or pod["terminationGracePeriodSeconds"] >= Settings().grace_s + 30
