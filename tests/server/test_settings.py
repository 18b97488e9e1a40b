"""Where the configuration comes from: a file, variables, options; and that every key is documented."""

from __future__ import annotations

from pathlib import Path

import pytest

from remote.server.config import PlusTier, ServerConfig, TierConfig
from remote.server.settings import BadSettings, config_keys, load_config, variable_of

REPOSITORY = Path(__file__).resolve().parents[2]


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "aloft.toml"
    file.write_text(text)
    return file


def test_an_option_comes_before_a_variable_and_a_variable_before_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, 'data = "here"\nport = 1\nhost = "a"\nmax_devices = 1')
    config = load_config(file, {"ALOFT_PORT": "2", "ALOFT_HOST": "b", "ALOFT_HOME": "/"}, {"port": 3, "host": None})
    assert config == ServerConfig(Path("here"), port=3, host="b", max_devices=1)


def test_a_data_folder_where_nobody_names_one(tmp_path: Path) -> None:
    assert load_config(None, {}, {}, default_data=tmp_path).data == tmp_path
    assert load_config(None, {"ALOFT_DATA": "there"}, {}, default_data=tmp_path).data == Path("there")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "there is no key prot"),
        ('port = "x"', "port: .* integer"),
        ('registration = "some"', "registration: .*'open'"),
        ('tls_cert = "x"', "tls_key"),
        ('public_url = "x"', "public URL"),
        ('database = "mysql://x/y"', "database"),
        ('database = "postgresql://x:port/y"', "database"),
        ("port = ", "aloft.toml: "),
        ("[tiers.gold]\nquota_bytes = 1", r"no key tiers\.gold"),
        ("[tiers.free]\nquota = 1", r"no key tiers\.free\.quota"),
        ('[tiers.plus]\nquota_bytes = "much"', r"tiers\.plus\.quota_bytes: .* integer"),
        ("[tiers.plus]\nkept_days = -1", r"tiers\.plus: kept_days must not be negative"),
        ("[tiers.pro]\nupload_bytes_per_second = 0", r"tiers\.pro: .*at least 1"),
        ('[tiers.pro]\ncontent_types = ["image/*", "*/png"]', r"tiers\.pro: the content type '\*/png'"),
        ('[cors]\norigins = ["*"]', r"cors\.origins: '\*' is no origin"),
        ('[cors]\norigins = ["https://*.example.org"]', "is no origin"),
        ('[cors]\norigins = ["https://example.org/"]', "nothing after it"),
        ('[cors]\norigins = ["https://EXAMPLE.org"]', "lower case"),
        ('[cors]\norigins = ["https://u@example.org"]', "is no origin"),
        ('[cors]\norigins = ["null"]', "is no origin"),
        ('[cors]\norigins = ["https://example.org:443"]', "the usual port"),
        ('[cors]\norigins = ["http://example.org"]', "this machine only"),
        ('[objects]\nbind_address = true\n[s3]\nbucket = "b"', "is for the embedded object store"),
        ('content_origin = "https://f.example.org"', "needs a public_url"),
        ('public_url = "https://a.example.org"\ncontent_origin = "https://a.example.org:8443"', "another host"),
        ('public_url = "https://a.example.org"\ncontent_origin = "https://f.example.org/x"', "content_origin: .* is no origin"),
        ("[tiers.pro]\ncontent_types = []", r"tiers\.pro: content_types must name a type"),
    ],
)
def test_what_cannot_be_is_said_with_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadSettings, match=message):
        load_config(write(tmp_path, text), {}, {}, default_data=tmp_path)


def test_tiers_are_what_the_file_says_of_them_and_else_as_ever(tmp_path: Path) -> None:
    file = write(tmp_path, "[tiers.plus]\nlargest_file_bytes = 5\n[tiers.free]\nkept_days = 1")
    config = load_config(file, {"ALOFT_TIERS_PLUS_CONTENT_TYPES": "image/*, text/plain"}, {}, default_data=tmp_path)
    assert config.tiers.free == TierConfig(kept_days=1)
    assert config.tiers.plus == PlusTier(largest_file_bytes=5, content_types=("image/*", "text/plain"))
    assert config.tiers.pro.quota_bytes > config.tiers.plus.quota_bytes > config.tiers.free.quota_bytes


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"cannot read .*No such file"):
        load_config(tmp_path / "nothing", {}, {})
    with pytest.raises(BadSettings, match="data must be chosen"):
        load_config(None, {}, {})


def test_every_key_is_documented() -> None:
    text = (REPOSITORY / "docs" / "configuration.md").read_text()
    undocumented = [key for key in config_keys() if f"`{key}`" not in text or f"`{variable_of(key)}`" not in text]
    assert undocumented == []
