"""The gate on config and on its own plan."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.unit.gate.world import World, digest
from trainseal.api.gateplan import GatePlan
from trainseal.gate.configuration import MAX_CONFIG_BYTES
from trainseal.gate.main import USAGE, run_text


def config_only(world: World) -> GatePlan:
    return world.push().model_copy(update={"code": []})


def test_config_as_sealed_is_copied_read_only_out_of_the_linked_volume(world: World) -> None:
    assert world.run_plan(config_only(world))[0] == 0
    copied = {path.name: path for path in world.config_target.iterdir()}
    assert {name: path.read_bytes() for name, path in copied.items()} == world.config
    assert all(stat.S_IMODE(path.lstat().st_mode) == 0o444 for path in copied.values())


def test_config_changed_after_the_seal_is_refused_and_nothing_is_written(world: World) -> None:
    plan = config_only(world)
    world.write_config_map("..2026_2", {**world.config, "config.yaml": b"lr: 0.9\n"})
    code, message = world.run_plan(plan)
    assert code == 1
    lr = b"lr: 0.9\n"
    assert f"config config.yaml: changed: found {digest(lr)}" in message
    assert list(world.config_target.iterdir()) == []


def test_a_config_map_made_anew_without_a_file_is_refused(world: World) -> None:
    plan = config_only(world)
    world.write_config_map("..2026_2", {"config.json": world.config["config.json"]})
    code, message = world.run_plan(plan)
    assert code == 1
    assert "config config.yaml: missing" in message


def test_a_config_map_made_anew_with_the_same_bytes_comes_through(world: World) -> None:
    plan = config_only(world)
    world.write_config_map("..2026_2", world.config)
    assert world.run_plan(plan)[0] == 0


def test_files_of_the_config_map_that_are_not_planned_are_not_copied(world: World) -> None:
    plan = config_only(world)
    world.write_config_map("..2026_2", {**world.config, "sitecustomize.py": b"x"})
    assert world.run_plan(plan)[0] == 0
    assert {path.name for path in world.config_target.iterdir()} == set(world.config)


def test_an_oversized_config_is_refused(world: World) -> None:
    world.config["config.yaml"] = b"#" * (MAX_CONFIG_BYTES + 1)
    world.write_config_map("..2026_2", world.config)
    code, message = world.run_plan(config_only(world))
    assert code == 1
    assert "more than" in message


def test_config_that_cannot_be_read_is_undetermined(world: World) -> None:
    plan = config_only(world)
    path = world.config_source / "config.yaml"
    path.unlink()
    path.mkdir()
    assert world.run_plan(plan)[0] == 2


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".hidden", "", "/etc/x"])
def test_a_planned_name_that_leads_elsewhere_is_refused(world: World, name: str) -> None:
    plan = config_only(world)
    assert plan.config is not None
    config = plan.config.model_copy(update={"files": {name: digest(b"")}})
    assert world.run_plan(plan.model_copy(update={"config": config}))[0] == 1
    assert list(world.config_target.iterdir()) == []


def test_a_link_in_the_config_target_is_replaced_not_written_through(
    world: World, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"untouched")
    (world.config_target / "config.yaml").symlink_to(outside)
    assert world.run_plan(config_only(world))[0] == 0
    assert outside.read_bytes() == b"untouched"
    assert not (world.config_target / "config.yaml").is_symlink()


def test_refused_config_keeps_the_code_away_as_well(world: World) -> None:
    plan = world.push()
    world.write_config_map("..2026_2", {**world.config, "config.yaml": b"lr: 0.9\n"})
    assert world.run_plan(plan)[0] == 1
    assert list(world.code.iterdir()) == []


@pytest.mark.parametrize("plan", ["", "[]", '{"code": 1}', '{"unknown": true}', "{"])
def test_a_plan_that_is_none_is_a_usage_error(tmp_path: Path, plan: str) -> None:
    log = tmp_path / "log"
    log.touch()
    assert run_text(plan, termination_log=log) == USAGE
    assert "the plan is not valid" in log.read_text()


def test_an_empty_plan_opens_the_gate(tmp_path: Path) -> None:
    assert run_text("{}", termination_log=tmp_path / "absent") == 0


def test_a_fault_of_our_own_is_never_called_refuted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_plan: object) -> int:
        raise AssertionError("unexpected")

    monkeypatch.setattr("trainseal.gate.main.copy_config", broken)
    code, message = world.run_plan(config_only(world))
    assert code == 2
    assert "fault in the gate itself" in message
