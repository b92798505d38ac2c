"""The doctor says what this machine has, for people and for programs."""

from __future__ import annotations

import json
import os
import platform

import torch

from criadero.doctor import examine


def test_the_report_is_one_json_object_about_this_machine(program):
    outcome = program("doctor", "--json")
    assert outcome.code == 0
    report = json.loads(outcome.stdout)
    assert report["python"] == platform.python_version()
    assert report["version torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert report["cpu_cores"] == len(os.sched_getaffinity(0))
    assert report["memory_bytes"] > 10**8
    assert report["free_disk_bytes"] >= 0
    assert len(report["cuda_devices"]) == torch.cuda.device_count()
    assert report["tensorboard"] is True


def test_people_get_a_line_for_each_thing(program):
    lines = program("doctor").stdout.splitlines()
    assert len(lines) == len(examine())
    assert any(line.split() == ["python", platform.python_version()] for line in lines)


def test_what_is_missing_is_none_and_not_a_fault(monkeypatch):
    monkeypatch.setenv("PATH", "")
    report = examine()
    assert report["compiler"] is None
    assert report["git_commit"] is None
