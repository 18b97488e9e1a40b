"""Where a `ServerConfig` comes from: a TOML file, `ALOFT_…` variables, and what was said on the command line.

The later of these wins, key by key. The keys are the fields of `ServerConfig`; a field that is a dataclass is a table:
`bucket` in `[s3]` is `ALOFT_S3_BUCKET`. An unknown key in a file is an error; variables that name no key are somebody
else's. `docs/configuration.md` explains every key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from remote.server.config import ServerConfig

PREFIX = "ALOFT_"


class BadSettings(ValueError):
    """What was configured cannot be; the text says where and why."""


def load_config(
    file: Path | None, environment: Mapping[str, str], given: Mapping[str, Any], *, default_data: Path | None = None
) -> ServerConfig:
    """The configuration. `given` by key (`{"port": 80, "s3.bucket": …}`), where None means that nothing was said.

    `default_data`: the data folder where nobody names one. `BadSettings`.
    """
    values: dict[str, Any] = {} if default_data is None else {"data": default_data}
    values |= {} if file is None else _read(file)
    for key in config_keys():
        if variable_of(key) in environment:
            _put(values, key, environment[variable_of(key)])
    for key, value in given.items():
        if value is not None:
            _put(values, key, value)
    try:
        return TypeAdapter(ServerConfig).validate_python(values)
    except ValidationError as error:
        raise BadSettings("; ".join(_explain(fault) for fault in error.errors(include_url=False))) from error


def config_keys(of: type[Any] = ServerConfig) -> Iterator[str]:
    """All keys; those of a table with its name before them: `port`, `s3.bucket`."""
    hints = get_type_hints(of)
    for field in fields(of):
        hint = hints[field.name]
        table = next((each for each in (hint, *get_args(hint)) if isinstance(each, type) and is_dataclass(each)), None)
        if table is None:
            yield field.name
        else:
            yield from (f"{field.name}.{key}" for key in config_keys(table))


def variable_of(key: str) -> str:
    """The environment variable that sets a key."""
    return PREFIX + key.replace(".", "_").upper()


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise BadSettings(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:  # no TOML, or no text
        raise BadSettings(f"{file}: {error}") from error


def _put(values: dict[str, Any], key: str, value: object) -> None:
    *tables, last = key.split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise BadSettings(f"{table} is a table, not a value")
    values[last] = value


def _explain(fault: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "unexpected_keyword_argument":
        return f"there is no key {where}"
    if fault["type"] in ("missing", "missing_argument"):
        return f"{where} must be chosen"
    what = str(fault["ctx"]["error"]) if fault["type"] == "value_error" else fault["msg"]
    return f"{where}: {what}" if where else what
