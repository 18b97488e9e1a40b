"""How the stored bytes of an object become its plain bytes. Pure; shared by client and service.

Takes CPU, and is meant for worker threads: zstd releases the interpreter.
"""

from __future__ import annotations

import zstandard

from remote.manifest import ChunkRef, Encoding


class BadObject(ValueError):
    """Stored bytes that are not what the manifest says of them."""


def decode(stored: bytes | bytearray, ref: ChunkRef) -> bytes | bytearray:
    """The plain bytes of the whole object of `ref`. The hash of its stored bytes was compared; `BadObject`."""
    if len(stored) != ref.stored_length:
        raise BadObject("an object is not as long as its manifest says")
    if ref.encoding is Encoding.RAW:
        return stored
    try:
        # The size in the frame's header is checked before anything is allocated, and nothing is decoded beyond it.
        if zstandard.get_frame_parameters(stored).content_size != ref.plain_length:
            raise BadObject("an object decodes to another length than its manifest says")
        plain = zstandard.ZstdDecompressor().decompress(stored, max_output_size=ref.plain_length, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BadObject(f"an object cannot be decoded: {error}") from error
    if len(plain) != ref.plain_length:
        raise BadObject("an object decodes to another length than its manifest says")
    return plain
