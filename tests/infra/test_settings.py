"""Settings: from the file, then the environment, then what a command was given."""

from __future__ import annotations

from pathlib import Path

import pytest

from callboard.infra.errors import SettingsInvalid, ValueTooLarge
from callboard.infra.settings import DAY, Settings


def test_later_sources_win(tmp_path: Path) -> None:
    """An override beats the environment, which beats the file, which beats the default."""
    file = tmp_path / "board.toml"
    file.write_text("replicas = 1\nack_wait = 11\nmax_deliver = 7\ngrace = 2\n")
    env = {"CALLBOARD_SETTINGS": str(file), "CALLBOARD_ACK_WAIT": "12", "CALLBOARD_MAX_DELIVER": "8"}
    settings = Settings.load(env, max_deliver=9, grace=None)
    assert (settings.replicas, settings.ack_wait, settings.max_deliver) == (1, 12.0, 9)
    assert (settings.grace, settings.pulse_every) == (2.0, 0.4)


def test_the_servers_address() -> None:
    """``NATS_URL`` sets it; Callboard's own name for it wins."""
    assert Settings.load({"NATS_URL": "nats://a"}).nats_url == "nats://a"
    assert Settings.load({"NATS_URL": "nats://a", "CALLBOARD_NATS_URL": "nats://b"}).nats_url == "nats://b"


def test_the_file_in_the_working_directory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``callboard.toml`` needs no mention."""
    (tmp_path / "callboard.toml").write_text('durability = "production"\n')
    monkeypatch.chdir(tmp_path)
    assert Settings.load({}).production


def test_variables_of_others() -> None:
    """Kubernetes gives every container some for each service."""
    others = {
        "CALLBOARD_SERVICE_HOST": "10.0.0.1",
        "CALLBOARD_PORT": "tcp://10.0.0.1:80",
        "MY_CALLBOARD_GRACE": "1",
    }
    assert Settings.load(others) == Settings.load({})


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({"CALLBOARD_GRAEC": "1"}, "no setting CALLBOARD_GRAEC; did you mean CALLBOARD_GRACE"),
        ({"CALLBOARD_SETINGS": "a.toml"}, "did you mean CALLBOARD_SETTINGS"),
        ({"CALLBOARD_REPLICAS": "six"}, "replicas"),
        ({"CALLBOARD_REPLICAS": "6"}, "0 .* to 5"),
        ({"CALLBOARD_REPLICAS": "-1"}, "0 .* to 5"),
        ({"CALLBOARD_DURABILITY": "forever"}, "durability"),
        ({"CALLBOARD_STORAGE": "tape"}, "storage"),
        ({"CALLBOARD_PULSE_EVERY": "1"}, "at least twice pulse_every"),
        ({"CALLBOARD_MAX_DELIVER": "1"}, "max_deliver"),
        ({"CALLBOARD_PULSE_EVERY": "0"}, "> 0.*pulse_every"),
        ({"CALLBOARD_PULSE_EVERY": "nan"}, "> 0.*pulse_every"),
        ({"CALLBOARD_ACK_WAIT": "0"}, "> 0.*ack_wait"),
        ({"CALLBOARD_RTT_EVERY": "0"}, "> 0.*rtt_every"),
        ({"CALLBOARD_GRACE": "-1"}, ">= 0.*grace"),
        ({"CALLBOARD_JOURNAL_MAX_AGE": "inf"}, "<= .*journal_max_age"),
        (
            {"CALLBOARD_BLOB_MAX_AGE": "86400"},
            "blob_max_age .86400 s. is shorter than journal_max_age .3888000 s",
        ),
        ({"CALLBOARD_JOURNAL_MAX_AGE": "0"}, "shorter than journal_max_age .0: for ever"),
        ({"CALLBOARD_INLINE_LIMIT": "-1"}, ">= 0.*inline_limit"),
        ({"CALLBOARD_VALUE_LIMIT": "0"}, ">= 1.*value_limit"),
        ({"CALLBOARD_HISTORY": "-1"}, ">= 0.*history"),
        ({"CALLBOARD_MAX_CONSUMERS": "0"}, ">= 1.*max_consumers"),
        ({"CALLBOARD_MAX_STORE_BYTES": "-2"}, ">= -1.*max_store_bytes"),
        ({"CALLBOARD_PARK_AFTER": "-1"}, ">= 0.*park_after"),
        ({"CALLBOARD_RESOURCES": "gpu=-1"}, ">= 0.*resources"),
        ({"CALLBOARD_RESOURCES": "gpu=nan"}, ">= 0.*resources"),
        ({"CALLBOARD_STEAL_AFTER": "soon"}, "setting steal_after is 'soon', and cannot be used: Expected"),
        ({"CALLBOARD_SETTINGS": "/no/such/file.toml"}, "/no/such/file.toml"),
    ],
)
def test_what_cannot_be_used_is_named(env: dict[str, str], text: str) -> None:
    """A typed error says which setting it is."""
    with pytest.raises(SettingsInvalid, match=text):
        Settings.load(env)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("replica = 1\n", "there is no setting replica; did you mean replicas\\?"),
        ("replicas = \n", "board.toml cannot be read"),
        ("[server]\nurl = 'x'\n", "there is no setting server"),
    ],
)
def test_a_file_with_mistakes(tmp_path: Path, content: str, text: str) -> None:
    """An unknown name or a broken file is an error, not silently ignored."""
    file = tmp_path / "board.toml"
    file.write_text(content)
    with pytest.raises(SettingsInvalid, match=text):
        Settings.load({}, file)


def test_a_month_fits() -> None:
    """Journals outlast it with room to spare; what they refer to lasts though it is stored again only at half."""
    settings = Settings.load({})
    assert settings.journal_max_age >= 40 * DAY
    assert settings.blob_max_age >= 2 * settings.journal_max_age


@pytest.mark.parametrize(("journals", "blobs"), [("0", "0"), ("86400", "0"), ("86400", "86400")])
def test_ages_that_fit_together(journals: str, blobs: str) -> None:
    """Large values last as long as journals, or for ever."""
    Settings.load({"CALLBOARD_JOURNAL_MAX_AGE": journals, "CALLBOARD_BLOB_MAX_AGE": blobs})


def test_the_largest_value() -> None:
    """A value of exactly the limit may travel; a byte more is a typed error with both sizes."""
    settings = Settings(value_limit=1000)
    settings.check_value_size(1000)
    with pytest.raises(ValueTooLarge, match="1,001") as caught:
        settings.check_value_size(1001)
    assert caught.value.fields == {"size": 1001, "limit": 1000}
