"""What the pickles of PyTorch's distributed checkpoints import, and nothing beside it.

Each value of a shard is one ``torch.save`` of a tensor; the index (``.metadata``) is one pickle of
plain records (PyTorch's ``distributed/checkpoint/metadata.py``, ``filesystem.py``, ``_utils.py``).
Of these none runs what it is given: for tensors they are among those that PyTorch's own loader
takes with ``weights_only=True``. Not on the list, on purpose: ``torch.storage._load_from_bytes``,
which loads another pickle; ``torch._tensor._rebuild_from_type_v2``, which calls what it is given;
``builtins.getattr``.
"""

from __future__ import annotations

from typing import Final

from trainseal.provenance.pickleimports import Import

_METADATA: Final = "torch.distributed.checkpoint.metadata"
_DTYPES: Final = (
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16",
    "bfloat16", "float32", "float64", "complex32", "complex64", "complex128", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2",
    "qint8", "quint8", "qint32",
)  # fmt: skip
_STORAGES: Final = (
    "DoubleStorage", "FloatStorage", "HalfStorage", "BFloat16Storage", "LongStorage", "IntStorage",
    "ShortStorage", "CharStorage", "ByteStorage", "BoolStorage", "ComplexDoubleStorage",
    "ComplexFloatStorage", "QInt8Storage", "QUInt8Storage", "QInt32Storage",
)  # fmt: skip
_TAME: Final = {
    "collections": frozenset({"OrderedDict"}),
    "pathlib": frozenset({"PosixPath", "PurePosixPath"}),
    "pathlib._local": frozenset({"PosixPath", "PurePosixPath"}),
    "torch": frozenset({"Size", *_DTYPES, *_STORAGES}),
    "torch._utils": frozenset({"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"}),
    "torch.storage": frozenset({"UntypedStorage"}),
    "torch.serialization": frozenset({"_get_layout"}),
    "torch.distributed._shard.sharded_tensor.metadata": frozenset(
        {"TensorProperties", "MEM_FORMAT_ENCODING"}
    ),
    "torch.distributed.checkpoint.filesystem": frozenset({"_StorageInfo"}),
    _METADATA: frozenset(
        {
            "Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata",
            "ChunkStorageMetadata", "TensorProperties", "StorageMeta", "_MEM_FORMAT_ENCODING",
        }
    ),
}  # fmt: skip


def is_tame(found: Import) -> bool:
    """Whether a distributed checkpoint needs it."""
    return found.name in _TAME.get(found.module, frozenset())


def is_metadata(found: Import) -> bool:
    """Whether it is the index of one."""
    return (found.module, found.name) == (_METADATA, "Metadata")
