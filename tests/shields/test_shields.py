"""The registry of shields, and the examples of conf/shield."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from llsflow.config import packaged_conf
from llsflow.schema.shields import LlamaGuard, Moderation, Patterns, ShieldConfig
from llsflow.shields import SHIELDS, Said, holds_back, severity, shield_of
from tests.shields.making import nobody

CONF = packaged_conf() / "shield"
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def read(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    given = {"model": "guard", "base_url": "http://127.0.0.1:9/v1"}
    provider = {key: given[key] if value == "???" else value for key, value in config["provider"].items()}
    return {**config, "provider": provider}


def test_every_kind_of_provider_has_a_shield() -> None:
    kinds = {get_args(kind.model_fields["type"].annotation)[0] for kind in (Patterns, LlamaGuard, Moderation)}
    assert set(SHIELDS) == kinds == {"patterns", "llama_guard", "moderation"}


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_a_shield_named_like_its_file(path: Path) -> None:
    made = shield_of(ShieldConfig.model_validate(read(path)), nobody)
    assert made.config.shield_id == path.stem
    assert type(made.shield).__name__ == SHIELDS[made.config.provider.type].partition(":")[2]
    assert holds_back([made])


def test_there_is_an_example_of_every_kind() -> None:
    assert {read(path)["provider"]["type"] for path in CONF.glob("*.yaml")} == set(SHIELDS)


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN PRIVATE KEY-----\nMIIE",
        "-----BEGIN RSA PRIVATE KEY-----",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----",
        "the key AKIAIOSFODNN7EXAMPLE.",
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "AWS_SECRET_ACCESS_KEY='wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY'",
        f"token ghp_{LETTERS}",
        f"github_pat_{LETTERS}_{LETTERS}",
        f"sk-proj-{LETTERS}",
        "card 4111111111111111",
        "card 4111 1111 1111 1111, till 12/30",
        "5555-5555-5555-4444",
        "2223003122003222",
        "6011111111111117",
        "3782 822463 10005",
        "371449635398431",
    ],
)
def test_the_example_of_secrets_finds_them(text: str) -> None:
    made = shield_of(ShieldConfig.model_validate(read(CONF / "secrets.yaml")), nobody)
    found = asyncio.run(made.look([Said("assistant", f"Here: {text}")]))
    assert found is not None
    assert found.violation_level == "error"
    assert ("card number" in (found.user_message or "")) is any(text.startswith(c) for c in ("card", *"23456"))


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----",
        "akiaiosfodnn7example",
        "AKIAIOSFODNN7EXAMPLEANDMORE",
        "set aws_secret_access_key first",
        "ghp_short",
        "risk-free",
        "task-list-of-all-the-things-that-are-to-be-done-today",
        "0.4111111111111111",
        "94111111111111111",
        "41111111111111112",
        "1111 1111 1111 1111",
        "order 12345, 2024-01-01",
    ],
)
def test_the_example_of_secrets_lets_what_is_none_pass(text: str) -> None:
    made = shield_of(ShieldConfig.model_validate(read(CONF / "secrets.yaml")), nobody)
    assert asyncio.run(made.look([Said("assistant", text)])) is None


def test_a_level_is_worse_than_the_one_before_it() -> None:
    levels: Any = ("error", "info", "warn")
    assert sorted(levels, key=severity) == ["info", "warn", "error"]


def test_the_registry_loads_no_client_and_no_regexes() -> None:
    program = "import sys, llsflow.shields; print([n for n in ('httpx', 'regex', 'torch') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
