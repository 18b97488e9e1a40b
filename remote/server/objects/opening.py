"""An embedded store, from a configuration: its folders, each known by its id, and its master key. See `folders`, `masterkeys`."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
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
        if len(there) < len(folders):
            raise DataFolderError(
                f"there is no master key in {masters.file}, and a folder of objects that may need one is not there: put the key "
                "back, or mount the disk; a new key is made only where none was lost"
            )
        masters.begin(clock(), random)
    current = masters.current()
    for folder in there:
        make_folder(folder.path / INCOMING)  # copies of a folder may lack it
        if current is not None:  # the others were noted when they wrapped
            folder.note_keys([current.id])
        if clear:
            folder.clear()
    for folder in folders:
        if folder not in there:
            log.error("the folder of objects %s is not there: mount its disk; or, if it is gone, see %s", folder.path, KNOWN)
    return LocalStore(folders, config.objects.copies, masters, keys, clock, random, encrypt=config.objects.encrypt)


def what_lacks(config: ServerConfig) -> Iterator[str]:
    """What keeps this store from being opened whole, in words; nothing is changed. `DataFolderError`."""
    masters = MasterKeys(master_key_of(config))
    for path, id_ in _known_ids(config).items():
        folder = ObjectFolder(path, id_ or "", masters)
        if id_ is None:
            place = next(each for each in (path, *path.absolute().parents) if each.exists())
            if not os.access(place, os.W_OK | os.X_OK):
                yield f"the folder of objects {path} cannot be made: {place} is not writable for this user"
        elif not folder.is_there():
            yield f"the folder of objects {path} is not there: mount its disk"
        else:
            _require_keys(folder, masters)


def _identify(config: ServerConfig, random: Callable[[int], bytes]) -> dict[Path, str]:
    """The id of each folder. One that was never used gets its own; one that is away is known by what it had."""
    ids = {path: _begin(path, random) if id_ is None else id_ for path, id_ in _known_ids(config).items()}
    file = config.data / KNOWN
    known = _read_known(file)
    now = known | {str(path.absolute()): id_ for path, id_ in ids.items()}
    if now != known:
        write_private(file, json.dumps(now, indent=1).encode())
    return ids


def _known_ids(config: ServerConfig) -> dict[Path, str | None]:
    """None: of a folder that was never used. `DataFolderError` if the service has others than are named."""
    known = _read_known(config.data / KNOWN)
    ids = {path: _said_id(path) or known.get(str(path.absolute())) for path in folders_of(config)}
    used = [id_ for id_ in ids.values() if id_ is not None]
    if len(set(used)) < len(used):
        raise DataFolderError(f"two of the folders {', '.join(map(str, ids))} are one and the same: name each once")
    others = [path for path, id_ in known.items() if id_ not in used]
    if others:
        raise DataFolderError(
            f"this service has objects in {', '.join(others)}, too: name all of its folders (objects.folders, or the --config "
            f"that it runs with); if one is not to be used any more, take its line out of {config.data / KNOWN}"
        )
    return ids


def _said_id(path: Path) -> str | None:
    try:
        about = read_about(path)
    except OSError:  # a disk that does not answer is one that is away
        return None
    return None if about is None else about.id


def _begin(path: Path, random: Callable[[int], bytes]) -> str:
    about = About(random(_ID_BYTES).hex())
    try:
        make_folder(path)
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
