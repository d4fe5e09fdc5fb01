"""From options to settings."""

from pathlib import Path

import pytest

from pilothouse.cli.settings import UpOptions, check_reference, check_store, parse_more, settings_of
from pilothouse.config import read_secret
from pilothouse.domain.errors import InvalidRequest

NOTHING = dict.fromkeys(UpOptions.__struct_fields__) | {"more": (), "detach": False, "is_json": False}


def options(**given: object) -> UpOptions:
    return UpOptions(**(NOTHING | {"home": "/h"} | given))  # type: ignore[arg-type]


def test_each_value_gets_the_type_of_its_setting() -> None:
    given = [
        "drain_timeout_s=60",
        "proxy_protocol=true",
        "trusted_proxies=10.0.0.0/8, ::1/128",
        "journal_sync=power",
    ]

    assert parse_more(given) == {
        "drain_timeout_s": 60.0,
        "proxy_protocol": True,
        "trusted_proxies": ("10.0.0.0/8", "::1/128"),
        "journal_sync": "power",
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("drain_timeout=60", "fix: drain_timeout_s=..."),
        ("port=1", "there is no such setting"),
        ("drain_timeout_s", "fix: drain_timeout_s=..."),
        ("drain_timeout_s=soon", "not a number. fix: such as drain_timeout_s=30.0"),
        ("journal_sync=never", "such as journal_sync=process"),
        ("trusted_proxies=everyone", "such as trusted_proxies=10.0.0.0/8"),
        ("proxy_protocol=perhaps", "such as proxy_protocol=false"),
    ],
)
def test_a_wrong_setting_is_told_with_a_right_one(text: str, told: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_more([text])

    assert told in refused.value.message


def test_a_file_is_named_from_where_up_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text("version: 1\n")

    assert settings_of(options(config="p.yaml")).config == str(tmp_path / "p.yaml")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"config": "none.yaml"}, "cannot read none.yaml"),
        ({"tls_key": "none.pem"}, "there is no file none.pem"),
        ({"tls_key": __file__}, "TLS needs both"),
    ],
)
def test_what_is_named_and_not_there_is_refused_before_the_start(given: dict[str, str], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        settings_of(options(**given))


def test_a_spec_with_an_unknown_field_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("version: 1\ndeployment: {}\n")

    with pytest.raises(InvalidRequest, match="did you mean `deployments`"):
        settings_of(options(config=str(path)))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:Planted@h/db",
        "postgresql://u@h/db?password=Planted",
        "postgresql://u@h/db?sslpassword=Planted",
        "mysql://u:Planted@h/db",
        "Planted",
        "postgresql://Planted@h",
    ],
)
def test_an_address_that_cannot_be_a_store_is_refused_without_repeating_it(url):
    with pytest.raises(InvalidRequest, match="--store") as caught:
        check_store(url)

    assert "Planted" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite",
        "postgresql://u@h/db",
        "postgres://u@h1,h2:5433/db?sslmode=require",
        "postgresql:///db?host=/run",
    ],
)
def test_an_address_of_a_store_is_taken(url):
    check_store(url)


@pytest.mark.parametrize("reference", ["Planted", "env:", "file:", "env:PLANTED_IS_UNSET", "file:/nowhere/x"])
def test_a_reference_without_a_secret_is_refused_and_a_secret_itself_is_not_repeated(reference):
    with pytest.raises(InvalidRequest) as caught:
        check_reference(reference)

    assert reference.startswith(("env:", "file:")) or reference not in str(caught.value)


def test_a_secret_comes_from_a_file_or_the_environment_and_cannot_be_printed(tmp_path, monkeypatch):
    (tmp_path / "word").write_text("Planted\n")
    monkeypatch.setenv("WORD", "Planted")
    monkeypatch.chdir(tmp_path)

    assert check_reference("file:word") == f"file:{tmp_path}/word"
    for reference in ("file:word", "env:WORD"):
        secret = read_secret(reference)
        assert secret.reveal() == "Planted"
        assert "Planted" not in f"{secret} {secret!r}"
