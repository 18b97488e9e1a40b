"""An embedded store, from a configuration: its folders, each known by its id, and its master key. See `folders`, `masterkeys`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from remote.server.config import ServerConfig
from remote.server.folder import DataFolderError, make_folder, write_private
from remote.server.keys import Keys
from remote.server.objects.folders import INCOMING, About, ObjectFolder, read_about, write_about
from remote.server.objects.local import LocalStore
from remote.server.objects.masterkeys import MasterKeys

log = logging.getLogger("aloft.server")

KNOWN = "folders.json"
MASTER_KEY = "master.key"
_ID_BYTES = 4


def folders_of(config: ServerConfig) -> tuple[Path, ...]:
    return config.objects.folders or (config.data / "objects",)


def master_key_of(config: ServerConfig) -> Path:
    return config.objects.master_key or config.data / MASTER_KEY


def open_local(
    config: ServerConfig, keys: Keys, clock: Callable[[], int], random: Callable[[int], bytes], *, clear: bool = True
) -> LocalStore:
    """`keys` sign links. `clear`: nobody else uses the folders, so what PUTs left there goes. `DataFolderError`, `OSError`."""
    make_folder(config.data)
    masters = MasterKeys(master_key_of(config))
    folders = [ObjectFolder(path, id_, masters) for path, id_ in _identify(config, random).items()]
    there = [folder for folder in folders if folder.is_there()]
    for folder in there:
        _require_keys(folder, masters)
    if config.objects.encrypt and masters.current() is None:
        masters.begin(clock(), random)
    current = masters.current()
    for folder in there:
        if current is not None:  # the others were noted when they wrapped
            folder.note_keys([current.id])
        if clear:
            folder.clear()
    for folder in folders:
        if folder not in there:
            log.error("the folder of objects %s is not there: mount its disk; or, if it is gone, see %s", folder.path, KNOWN)
    return LocalStore(folders, config.objects.copies, masters, keys, clock, random, encrypt=config.objects.encrypt)


def _identify(config: ServerConfig, random: Callable[[int], bytes]) -> dict[Path, str]:
    """The id of each folder. One that was never used gets its own; one that is away is known by what it had."""
    file = config.data / KNOWN
    known = _read_known(file)
    _require_one_of(known, folders_of(config), file)
    ids = {path: _id_of(path, known.get(str(path.absolute())), random) for path in folders_of(config)}
    if len(set(ids.values())) < len(ids):
        raise DataFolderError(f"two of the folders {', '.join(map(str, ids))} are one and the same: name each once")
    now = known | {str(path.absolute()): id_ for path, id_ in ids.items()}
    if now != known:
        write_private(file, json.dumps(now, indent=1).encode())
    return ids


def _require_one_of(known: Mapping[str, str], folders: Sequence[Path], file: Path) -> None:
    """Of a service that has folders, not one is named: then another configuration is meant, and this would find nothing."""
    if not known or any(str(path.absolute()) in known for path in folders):
        return
    for path in folders:
        about = read_about(path) if path.is_dir() else None
        if about is not None and about.id in known.values():
            return
    raise DataFolderError(
        f"the objects of this service are in {', '.join(known)}, and none of these is among objects.folders: "
        f"give the service's own --config, or, if they are gone for good, remove {file}"
    )


def _id_of(path: Path, known: str | None, random: Callable[[int], bytes]) -> str:
    try:
        about = read_about(path)
    except OSError:
        about = None
    if about is not None:
        return about.id
    if known is not None:
        return known
    about = About(random(_ID_BYTES).hex())
    try:
        make_folder(path)
        make_folder(path / INCOMING)
        write_about(path, about)
    except OSError as error:
        raise DataFolderError(f"cannot use the folder of objects {path}: {error.strerror}") from error
    return about.id


def _read_known(file: Path) -> dict[str, str]:
    try:
        return {str(path): str(id_) for path, id_ in json.loads(file.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as error:
        raise DataFolderError(f"{file} is damaged: remove it when all folders of objects are mounted") from error


def _require_keys(folder: ObjectFolder, masters: MasterKeys) -> None:
    lacking = folder.keys_needed() - {id_.hex() for id_ in masters.all()}
    if lacking:
        raise DataFolderError(
            f"the objects in {folder.path} need the master key {', '.join(sorted(lacking))}, which is not in {masters.file}: "
            "put that file back from your copy of it, because nothing else opens them"
        )
