"""Settings: the precedence of their sources, the values that are refused, and how they are displayed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker import errors, settings


def refused(environ: dict[str, str], flags: dict[str, object] | None = None, file: Path | None = None) -> str:
    """The message of the error that these settings cause."""
    with pytest.raises(errors.SettingsError) as caught:
        settings.load(flags or {}, environ, file)
    return str(caught.value)


def test_without_anything_given_every_setting_has_its_default() -> None:
    """No setting is required: every value is a default, and so is every origin."""
    loaded, origins = settings.load({}, {})
    assert loaded.server == (settings.DEFAULT_SERVER,)
    assert loaded.run_window is None
    assert set(origins) == set(type(loaded).model_fields)
    assert set(origins.values()) == {"default"}


def test_flags_override_the_environment_and_the_environment_overrides_the_file(tmp_path: Path) -> None:
    """Each source overrides those below it, and the origin of each value is reported."""
    file = tmp_path / "ems.toml"
    file.write_text('rpc_window = 1\nmax_jobs = 1\nrun_window = 1\nserver = ["nats://a:1", "nats://b:2"]\n')
    environ = {"EMS_CONFIG": str(file), "EMS_RPC_WINDOW": "2", "EMS_MAX_JOBS": "2"}
    loaded, origins = settings.load({"rpc_window": "3", "worker_id": None}, environ)
    assert (loaded.rpc_window, loaded.max_jobs, loaded.run_window) == (3, 2, 1)
    assert loaded.server == ("nats://a:1", "nats://b:2")
    assert (origins["rpc_window"], origins["max_jobs"], origins["run_window"], origins["worker_id"]) == (
        "--rpc-window",
        "EMS_MAX_JOBS",
        str(file),
        "default",
    )


def test_a_named_file_overrides_the_file_variable(tmp_path: Path) -> None:
    """EMS_CONFIG is read only if no file is named."""
    file = tmp_path / "ems.toml"
    file.write_text("rpc_window = 7\n")
    loaded, _ = settings.load({}, {"EMS_CONFIG": str(tmp_path / "absent.toml")}, file)
    assert loaded.rpc_window == 7


def test_nats_url_is_read_if_no_server_variable_is_set() -> None:
    """EMS_SERVER overrides NATS_URL, for the worker and for the command line."""
    assert settings.load({}, {"NATS_URL": "nats://n:1"})[0].server == ("nats://n:1",)
    assert settings.load({}, {"NATS_URL": "nats://n:1", "EMS_SERVER": "e:1,f:2"})[0].server == ("e:1", "f:2")
    assert settings.access({}, {"NATS_URL": "nats://n:1"}).servers == ("nats://n:1",)
    assert settings.access({}, {"NATS_URL": "nats://n:1", "EMS_SERVER": "e:1"}).servers == ("e:1",)
    assert settings.access({"server": "g:3"}, {"EMS_SERVER": "e:1"}).servers == ("g:3",)
    assert settings.access({}, {"HOME": "/nowhere"}).servers == (settings.DEFAULT_SERVER,)


def test_an_empty_variable_unsets_an_optional_setting() -> None:
    """An empty environment variable means None, or off for the HTTP address."""
    environ = {"EMS_RUN_WINDOW": "", "EMS_BASE_CONFIG_ROOT": "", "EMS_EXPORT_DIR": "", "EMS_HTTP": ""}
    loaded, _ = settings.load({}, environ)
    assert (loaded.run_window, loaded.base_config_root, loaded.export_dir, loaded.http_address) == (None,) * 4
    assert loaded.exports == loaded.data_dir
    assert settings.load({}, {"EMS_EXPORT_DIR": "/x"})[0].exports == Path("/x")


def test_all_problems_are_reported_at_once_with_their_origin(tmp_path: Path) -> None:
    """An unknown name comes with a suggestion, an invalid value with the source that it was given in."""
    file = tmp_path / "ems.toml"
    file.write_text("rpc_windw = 1\nmax_jobs = true\n")
    message = refused({"EMS_SERVR": "x", "EMS_RUN_WINDOW": "0", "EMS_CRASH_AT": "a point"}, {"http": "8080"}, file)
    assert f"unknown setting rpc_windw in {file}; did you mean rpc_window?" in message
    assert "unknown environment variable EMS_SERVR; did you mean EMS_SERVER?" in message
    assert "run_window (from EMS_RUN_WINDOW): '0' should be greater than or equal to 1" in message
    assert f"max_jobs (from {file}): 'true' should be a number" in message
    assert "http (from --http): '8080' should look like 127.0.0.1:8080" in message
    assert "CRASH_AT" not in message
    assert len(message.splitlines()) == 5


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("EMS_SERVER", "http://host:1"),
        ("EMS_SERVER", ","),
        ("EMS_SERVER", "nats://host:99999"),
        ("EMS_DATA_DIR", ""),
        ("EMS_HTTP", "::1:80"),
        ("EMS_HTTP", "host:70000"),
        ("EMS_CREATE_STREAMS", "perhaps"),
        ("EMS_RPC_WINDOW", "1.5"),
        ("EMS_RPC_DEADLINE_SECONDS", "inf"),
        ("EMS_STATUS_INTERVAL_SECONDS", "0.01"),
        ("EMS_REPLY_PREFIXES", "_INBOX"),
        ("EMS_REPLY_PREFIXES", "_INBOX.>"),
        ("EMS_REPLY_PREFIXES", "ems.experiment."),
        ("EMS_REPLY_PREFIXES", "$JS."),
        ("EMS_WORKER_ID", "two words"),
        ("EMS_LOG_LEVEL", "loud"),
        ("EMS_RETENTION", "30"),
        ("EMS_RETENTION", "10s"),
        ("EMS_BACKUP_INTERVAL", "daily"),
    ],
)
def test_an_invalid_value_is_refused_in_plain_english(variable: str, value: str) -> None:
    """The message names the variable and has none of the terms of the validation library."""
    message = refused({variable: value})
    assert variable in message
    assert "alidation" not in message
    assert "pattern" not in message


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """The error distinguishes a missing file from one that is not TOML."""
    assert "can't be read" in refused({"EMS_CONFIG": str(tmp_path / "absent")})
    file = tmp_path / "ems.toml"
    file.write_bytes(b"rpc_window 5\n")
    assert "is not TOML" in refused({}, file=file)
    file.write_bytes(b"\xff\xfe")
    assert "is not TOML" in refused({}, file=file)


def test_service_links_of_kubernetes_are_not_settings() -> None:
    """A service named ems-something in the same namespace does not stop the worker from starting."""
    links = ["EMS_SERVICE_HOST", "EMS_NATS_SERVICE_PORT_CLIENT", "EMS_NATS_PORT", "EMS_NATS_PORT_4222_TCP_ADDR"]
    settings.load({}, dict.fromkeys(links, "tcp://10.0.0.1:4222"))


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("nats://u:secret@h:1", "nats://***@h:1"),
        ("t:secret@h", "***@h"),
        ("tls://token@h", "tls://***@h"),
        ("nats://u:sec@ret@h:1", "nats://***@h:1"),
        ("nats://u:sec\nret@h:1", "nats://***@h:1"),
        ("nats://h:1", "nats://h:1"),
        ("[::1]:4222", "[::1]:4222"),
    ],
)
def test_the_credentials_of_an_address_are_masked_wherever_it_is_displayed(address: str, masked: str) -> None:
    """Listings of settings and messages about connections have a mask in place of the credentials."""
    assert settings.shown((address, "nats://other:2")) == f"{masked},nats://other:2"
    assert settings.Access((address,)).where == masked.removeprefix("nats://")


def test_secrets_are_masked_in_errors() -> None:
    """The message about an invalid value shows neither a password in an address nor a secret setting."""
    assert "secret" not in refused({"EMS_SERVER": "http://u:secret@h:1"})
    assert "secret" not in refused({"EMS_RPC_WINDOW": "u:secret@h"})
    assert "secret" not in refused({}, {"nats_password": ["secret"]})


def test_every_setting_is_described() -> None:
    """Variable and flag follow from the name, numbers have a unit, and every default can be given explicitly."""
    for setting in settings.describe():
        assert setting.env == f"EMS_{setting.name.upper()}"
        assert setting.flag == f"--{setting.name.replace('_', '-')}"
        assert setting.description.endswith(".")
        assert bool(setting.unit) == bool("≥" in setting.constraint or ">" in setting.constraint), setting.name
        if setting.name != "worker_id":
            loaded, _ = settings.load({}, {setting.env: setting.default})
            assert getattr(loaded, setting.name) == getattr(settings.Settings(), setting.name)


@given(host=st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True), port=st.integers(0, 65535))
def test_an_address_is_split_into_host_and_port(host: str, port: int) -> None:
    """Both a name and an IPv6 address in brackets are split from the port that follows them."""
    assert settings.host_and_port(f"{host}:{port}") == (host, port)
    assert settings.host_and_port(f"[::1]:{port}") == ("::1", port)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("1.5h", 5400), ("30d", 2_592_000), ("2w", 1_209_600)]
)
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    """As in plans, and in days and weeks too."""
    loaded, _ = settings.load({}, {"EMS_RETENTION": text, "EMS_BACKUP_INTERVAL": text})
    assert (loaded.retention_seconds, loaded.backup_seconds) == (seconds, seconds)
    assert settings.load({}, {"EMS_RETENTION": ""})[0].retention_seconds is None
