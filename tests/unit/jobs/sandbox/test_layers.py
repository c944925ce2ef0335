"""The layers that `millrace doctor` reports are those that hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.cli.local.checks import run_checks
from app.jobs.sandbox import landlock, seccomp
from app.jobs.sandbox.layers import find_layers, probe
from tests.support.databases import SettingsEnv
from tests.support.sandbox_rig import on_linux


@on_linux
def test_each_layer_of_a_closed_sandbox_is_tried() -> None:
    layers = {layer.name: layer for layer in find_layers()}
    assert layers["files"].holds is (landlock.version() > 0)
    assert layers["network"].holds is layers["processes"].holds is seccomp.is_known_machine()
    assert layers["memory"].holds
    assert all(layer.holds is (layer.lack == "") for layer in layers.values())


def test_outside_of_a_sandbox_no_layer_holds(tmp_path: Path) -> None:
    """The probe reports what it could do, not what was asked for."""
    results = probe(tmp_path, host=1, host_user=0)
    assert {results["files"], results["network"], results["memory"]} == {False}


@on_linux
def test_doctor_lists_the_layers_and_warns_of_data_within_reach(
    settings_env: SettingsEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_env(data_dir=tmp_path)
    finding = next(finding for finding in run_checks() if finding.check == "sandbox")
    assert finding.found.startswith("closed: files, network, processes, memory")
    assert finding.state == "ok"
    monkeypatch.chdir("/usr/share")
    settings_env(data_dir=Path("/usr/share/millrace"))
    finding = next(finding for finding in run_checks() if finding.check == "sandbox")
    assert finding.state == "warn"
    assert "it can read /usr/share/millrace" in finding.found
