"""What files and trees must look like, kept in memory. Pure: they touch no file system.

FileModel   one file: its bytes, and every content that it had since it was last closed
TreeModel   names, links, modes and contents below one folder
"""

from __future__ import annotations

import errno
import hashlib
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

_BLOCK = 4096


@dataclass
class FileModel:
    """A file that one process writes. `content` is what a read must give. After a crash the file may be a mixture of what it
    was when it was last closed and of what was written since: `explains` says whether it is."""

    content: bytearray = field(default_factory=bytearray)
    _before: list[bytes] = field(default_factory=lambda: [b""])
    """What it was when it was closed last, and after each change since; without the present one."""

    def write(self, offset: int, data: bytes) -> None:
        if not data:
            return
        self._changes()
        if offset > len(self.content):
            self.content.extend(bytes(offset - len(self.content)))
        self.content[offset : offset + len(data)] = data

    def append(self, data: bytes) -> None:
        self.write(len(self.content), data)

    def truncate(self, size: int) -> None:
        self._changes()
        if size < len(self.content):
            del self.content[size:]
        else:
            self.content.extend(bytes(size - len(self.content)))

    def punch(self, offset: int, length: int) -> None:
        end = min(offset + length, len(self.content))
        if offset < end:
            self.write(offset, bytes(end - offset))

    def closed(self) -> None:
        """The content is safe: nothing that was before may come back."""
        self._before = [bytes(self.content)]

    @property
    def is_closed(self) -> bool:
        return len(self._before) == 1 and self._before[0] == self.content

    def found(self, content: bytes) -> None:
        """It was a mixture, and is this now."""
        self.content = bytearray(content)
        self.closed()

    def explains(self, found: bytes) -> bool:
        """Whether each byte was in its place at some time since the file was closed, and the size is one that it had. Where a
        file was shorter, zeros."""
        had = [*self._before, bytes(self.content)]
        if len(found) not in {len(content) for content in had}:
            return False
        return all(self._explains(found, start, had) for start in range(0, len(found), _BLOCK))

    @staticmethod
    def _explains(found: bytes, start: int, had: list[bytes]) -> bool:
        block = found[start : start + _BLOCK]
        candidates = {content[start : start + len(block)].ljust(len(block), b"\0") for content in had}
        if block in candidates:
            return True
        return all(byte in {candidate[at] for candidate in candidates} for at, byte in enumerate(block))

    def _changes(self) -> None:
        if self._before[-1] != self.content:
            self._before.append(bytes(self.content))


# ----------------------------------------------------------------------------------------------------------------- trees

Kind = Literal["file", "folder", "link"]


@dataclass
class Node:
    """An inode. `content`: the digest of a file's bytes, or where a link points."""

    kind: Kind
    mode: int
    content: str = ""


class Refused(Exception):
    """What the file system must say as well: an errno."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.errno = number


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


class TreeModel:
    """Paths are relative, without a slash at either end; the root is "", and is always there."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        """By path; two names of one file share the node."""

    def copy(self) -> TreeModel:
        copies: dict[int, Node] = {}
        tree = TreeModel()
        for path, node in self.nodes.items():
            tree.nodes[path] = copies.setdefault(id(node), Node(node.kind, node.mode, node.content))
        return tree

    def create(self, path: str, mode: int, content: bytes) -> None:
        self._check_free(path)
        self.nodes[path] = Node("file", mode, digest(content))

    def write(self, path: str, content: bytes) -> None:
        self._file(path).content = digest(content)

    def mkdir(self, path: str, mode: int) -> None:
        self._check_free(path)
        self.nodes[path] = Node("folder", mode)

    def symlink(self, path: str, target: str) -> None:
        self._check_free(path)
        self.nodes[path] = Node("link", 0o777, target)

    def link(self, old: str, new: str) -> None:
        node = self._node(old)
        self._check_free(new)
        if node.kind == "folder":
            raise Refused(errno.EPERM)
        self.nodes[new] = node

    def unlink(self, path: str) -> None:
        if self._node(path).kind == "folder":
            raise Refused(errno.EISDIR)
        del self.nodes[path]

    def rmdir(self, path: str) -> None:
        if self._node(path).kind != "folder":
            raise Refused(errno.ENOTDIR)
        if any(self.below(path)):
            raise Refused(errno.ENOTEMPTY)
        del self.nodes[path]

    def chmod(self, path: str, mode: int) -> None:
        self._node(path).mode = mode

    def rename(self, old: str, new: str) -> None:
        node = self._node(old)
        if f"{new}/".startswith(f"{old}/") and node.kind == "folder" and old != new:
            raise Refused(errno.EINVAL)
        self._check_parent(new)
        there = self.nodes.get(new)
        if there is node:
            return  # two names of one file: nothing happens
        if there is not None:
            self._check_replaceable(node, there, old, new)
            del self.nodes[new]
        moved = [old, *self.below(old)]
        taken = {path: self.nodes.pop(path) for path in moved}
        self.nodes |= {new + path[len(old) :]: node for path, node in taken.items()}

    def below(self, folder: str) -> list[str]:
        prefix = f"{folder}/" if folder else ""
        return [path for path in self.nodes if path.startswith(prefix) and path != folder]

    def names(self, node: Node) -> int:
        return sum(one is node for one in self.nodes.values())

    def of_kind(self, *kinds: Kind) -> list[str]:
        return [path for path, node in self.nodes.items() if node.kind in kinds]

    def folders(self) -> list[str]:
        return ["", *self.of_kind("folder")]

    def describe(self) -> dict[str, tuple[Kind, int, str, int]]:
        """Kind, mode, content and number of names (of folders 0) by path."""
        return {path: self._describe(node) for path, node in sorted(self.nodes.items())}

    def _describe(self, node: Node) -> tuple[Kind, int, str, int]:
        return node.kind, node.mode, node.content, 0 if node.kind == "folder" else self.names(node)

    def _check_replaceable(self, node: Node, there: Node, old: str, new: str) -> None:
        if f"{old}/".startswith(f"{new}/"):
            raise Refused(errno.ENOTEMPTY)
        if there.kind == "folder":
            if node.kind != "folder":
                raise Refused(errno.EISDIR)
            if any(self.below(new)):
                raise Refused(errno.ENOTEMPTY)
        elif node.kind == "folder":
            raise Refused(errno.ENOTDIR)

    def _check_free(self, path: str) -> None:
        self._check_parent(path)
        if path in self.nodes:
            raise Refused(errno.EEXIST)

    def _check_parent(self, path: str) -> None:
        for folder in _above(path):
            node = self.nodes.get(folder)
            if node is None:
                raise Refused(errno.ENOENT)
            if node.kind != "folder":
                raise Refused(errno.ENOTDIR)

    def _node(self, path: str) -> Node:
        self._check_parent(path)
        node = self.nodes.get(path)
        if node is None:
            raise Refused(errno.ENOENT)
        return node

    def _file(self, path: str) -> Node:
        node = self._node(path)
        if node.kind == "folder":
            raise Refused(errno.EISDIR)
        return node


def _above(path: str) -> Iterator[str]:
    """The folders above, from the outermost."""
    parts = posixpath.dirname(path).split("/")
    for count in range(1, len(parts) + 1):
        folder = "/".join(parts[:count])
        if folder:
            yield folder
