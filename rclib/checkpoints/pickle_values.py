"""What a pickle of weights is read into: descriptions of tensors and inert stand-ins.

Nothing that a pickle names is imported or called. What it asks to build is looked up here, by
name, in the short list of what state dicts and the notes beside them (optimizers, arguments,
losses) are made of; anything else is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = [
    "STORAGES",
    "Array",
    "Data",
    "Foreign",
    "Inline",
    "Instance",
    "Named",
    "Other",
    "PickledTensor",
    "Refused",
    "Storage",
    "called",
    "fill",
    "key_of",
    "known",
    "made",
]

MAX_AXES = 32


class Refused(ValueError):
    """Something that a pickle of weights does not hold; one line without the file's name."""


class Foreign(Refused):
    """A class or function that the pickle names and that weights are not made of."""


@dataclass(frozen=True, eq=False, slots=True)
class Named:
    """A global that the pickle names; it stands for nothing but its name."""

    name: str


@dataclass(frozen=True, eq=False, slots=True)
class Other:
    """A value of no use here: kind says what it would be."""

    kind: str


@dataclass(eq=False, slots=True)
class Instance:
    """An object with attributes alone (argparse.Namespace); state : {attribute: value}."""

    kind: str
    state: Any = None


@dataclass(frozen=True, eq=False, slots=True)
class Data:
    """Bytes of the pickle, left where they are. latin : stored as the UTF-8 of Latin-1 text."""

    start: int
    stop: int
    latin: bool = False


class Inline(bytes):
    """Bytes of the pickle that are short enough to be a text, with their place."""

    start: int

    @property
    def stop(self) -> int:
        """The place behind them."""
        return self.start + len(self)


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """Entries of one type somewhere else in the file. dtype : None for plain bytes; first :
    the entry at which a view of an old file begins."""

    key: str
    dtype: str | None
    count: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class PickledTensor:
    """A tensor of a storage, in entries; reason : why it cannot be read, "" if it can."""

    storage: Storage | None
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    reason: str = ""


@dataclass(eq=False, slots=True)
class Array:
    """A numpy array whose bytes stand in the pickle itself; data is None until they are known."""

    data: Data | bytes | None = None
    dtype: str = ""
    shape: tuple[int, ...] = ()
    fortran: bool = False


STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": None,
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
    "QUInt4x2Storage": "uint8",
    "QUInt2x4Storage": "uint8",
}
_DTYPES = """
    float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex32 complex64
    complex128 uint16 uint32 uint64 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz
    float8_e8m0fnu
"""
DTYPES = frozenset(_DTYPES.split())
# numpy's codes of little-endian or one-byte types.
NUMPY = {
    "f8": "float64", "f4": "float32", "f2": "float16", "i8": "int64", "i4": "int32",
    "i2": "int16", "i1": "int8", "u8": "uint64", "u4": "uint32", "u2": "uint16", "u1": "uint8",
    "b1": "bool",
}  # fmt: skip

_REBUILD = "torch._utils._rebuild_"
_TENSORS = {"tensor", "tensor_v2", "tensor_v3"}
# Tensors whose values are not plain: listed with a reason, so that the others can be read.
_UNREADABLE = {
    "qtensor": "is quantised (torch.quantize_per_tensor or per_channel); save dequantize() of it",
    "sparse_tensor": "is sparse; save to_dense() of it",
    "meta_tensor_no_storage": "holds no values (it was saved on the meta device)",
    "device_tensor_from_numpy": "was saved on another kind of device; save cpu() of it",
    "device_tensor_from_cpu_tensor": "was saved on another kind of device; save cpu() of it",
    "wrapper_subclass": "is of a tensor subclass; save a plain tensor",
}
# Values without a tensor inside: whatever they are called with, they stay what they are named.
_VALUES = """
    torch.per_tensor_affine torch.per_tensor_symmetric torch.per_channel_affine
    torch.per_channel_symmetric torch.per_channel_affine_float_qparams
    torch.Size torch.device torch.serialization._get_layout torch.torch_version.TorchVersion
    builtins.set builtins.frozenset builtins.complex builtins.slice builtins.range builtins.object
    builtins.list builtins.tuple builtins.int builtins.float builtins.str builtins.bool
    builtins.dict collections.deque datetime.datetime datetime.date datetime.timedelta
    datetime.timezone decimal.Decimal fractions.Fraction uuid.UUID
    pathlib.Path pathlib.PosixPath pathlib.PurePosixPath pathlib.WindowsPath
    pathlib.PureWindowsPath pathlib._local.PosixPath pathlib._local.WindowsPath
"""
_INERT = frozenset(_VALUES.split())
_MAPPINGS = {"collections.OrderedDict", "collections.defaultdict", "collections.Counter"}
_INSTANCES = {"argparse.Namespace", "types.SimpleNamespace"}
_NUMPY = {
    f"{module}.{name}"
    for module in ("numpy.core.multiarray", "numpy._core.multiarray")
    for name in ("scalar", "_reconstruct")
}
_FLAT = {"numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"}
_SPECIAL = {
    "_codecs.encode", "builtins.bytearray", "builtins.bytes", "numpy.dtype", "numpy.ndarray",
    "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer", "torch.Tensor",
    "torch._tensor._rebuild_from_type_v2", "copyreg._reconstructor",
    f"{_REBUILD}parameter", f"{_REBUILD}parameter_with_state",
    *(f"{_REBUILD}{kind}" for kind in (*_TENSORS, *_UNREADABLE)),
}  # fmt: skip
# Names that Python 2, and with it protocol 2, has for these modules.
_OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


def known(module: str, name: str) -> Named:
    """What a global stands for. Raises Foreign for anything but what weights are made of."""
    full = f"{_OLD_MODULES.get(module, module)}.{name}"
    short = full.removeprefix("torch.storage.").removeprefix("torch.cuda.").removeprefix("torch.")
    plain = (
        full in _INERT
        or full in _SPECIAL
        or full in _NUMPY
        or full in _FLAT
        or full in _MAPPINGS
        or full in _INSTANCES
        or full.startswith("numpy.dtypes.")
        or (full.startswith("torch.") and (short in STORAGES or short in DTYPES))
    )
    if plain or short in {f"{k}Tensor" for k in ("Float", "Double", "Half", "Long")}:
        # The old tensor classes are named in some files; calling them is refused below.
        return Named(full)
    raise Foreign(full)


def called(function: Any, args: Any) -> Any:
    """What a call of a global gives. Raises Refused for calls that no state dict needs."""
    if not isinstance(function, Named) or not isinstance(args, tuple):
        raise Refused("a call of something that is no function")
    name = function.name
    if name.startswith(_REBUILD):
        return _rebuilt(name.removeprefix(_REBUILD), args)
    if name == "torch._tensor._rebuild_from_type_v2":
        if len(args) != 4 or not _is_tensor_class(args[1]):
            raise Refused("a tensor of a class of its own")
        return called(args[0], args[2])
    if name == "copyreg._reconstructor" and args and isinstance(args[0], Named):
        return made(args[0], ())
    if name in _INSTANCES and not args:
        return Instance(name)
    if name in _MAPPINGS:
        return _mapping(name, args)
    if name == "torch.Size" and len(args) == 1 and isinstance(args[0], tuple):
        return args[0]
    if name in _INERT or name.startswith("numpy.dtypes."):
        return Other(name)
    return _bytes_and_arrays(name, args)


def made(cls: Any, args: Any) -> Any:
    """What `cls.__new__(cls, *args)` gives."""
    if isinstance(cls, Named) and cls.name in _INSTANCES:
        return Instance(cls.name)
    if isinstance(cls, Named) and cls.name in _MAPPINGS:
        return {}
    return called(cls, args)


def _is_tensor_class(value: Any) -> bool:
    return isinstance(value, Named) and value.name in (
        "torch.Tensor",
        "torch.nn.parameter.Parameter",
    )


def _mapping(name: str, args: tuple[Any, ...]) -> dict[Any, Any]:
    if name == "collections.OrderedDict" and len(args) == 1 and isinstance(args[0], list):
        pairs = args[0]
        if all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
            found = {key_of(k): v for k, v in pairs}
            if len(found) < len(pairs):
                raise Refused("an OrderedDict with a key twice")
            return found
    if not args or all(isinstance(a, Named) for a in args):
        return {}
    if len(args) == 1 and isinstance(args[0], dict):
        return args[0]
    raise Refused(f"{name} made of something else than pairs")


def key_of(value: Any) -> Any:
    """A key as it is kept. Texts and small numbers stay; the rest is told apart by identity, so
    that no hash of the file's choice is ever computed."""
    if isinstance(value, str) or (isinstance(value, int) and abs(value) < 2**60):
        return value
    return Other(type(value).__name__)


def _bytes_and_arrays(name: str, args: tuple[Any, ...]) -> Any:
    if name == "_codecs.encode":
        if len(args) == 2 and args[1] in ("latin1", "latin-1"):
            if isinstance(args[0], Data):
                return Data(args[0].start, args[0].stop, latin=True)
            if isinstance(args[0], str) and all(ord(c) < 256 for c in args[0]):
                return args[0].encode("latin-1")
        raise Refused("_codecs.encode of something else than bytes as Latin-1")
    if name in ("builtins.bytearray", "builtins.bytes"):
        if not args or (len(args) == 1 and isinstance(args[0], (Data, bytes))):
            return args[0] if args else b""
        raise Refused(f"{name} of something else than bytes")
    if name == "numpy.dtype" and args and isinstance(args[0], (str, Named)):
        return Instance("numpy.dtype", args[0] if isinstance(args[0], str) else args[0].name)
    if name in _NUMPY:
        return Other("numpy scalar") if name.endswith("scalar") else Array()
    if name in _FLAT and len(args) == 4:
        found = Array()
        fill(found, (1, args[2], args[1], args[3] == "F", args[0]))
        return found
    raise Refused(f"a call of {name}")


def _rebuilt(kind: str, args: tuple[Any, ...]) -> Any:
    if kind.startswith("parameter") and args and isinstance(args[0], PickledTensor):
        return args[0]
    if kind in _UNREADABLE:
        return PickledTensor(None, "", 0, (), (), _UNREADABLE[kind])
    least = {"tensor": 4, "tensor_v2": 6, "tensor_v3": 7}.get(kind)
    if least is None or len(args) < least:
        raise Refused("a tensor made in a way that torch.save does not use")
    storage, offset, shape, stride = args[:4]
    if not isinstance(storage, Storage) or not _natural(offset):
        raise Refused("a tensor without a storage")
    if not _naturals(shape) or not _naturals(stride) or len(shape) != len(stride):
        raise Refused("a tensor whose shape and strides are not whole numbers")
    dtype, extra = storage.dtype, args[6:]
    if kind == "tensor_v3":
        named = args[6].name.removeprefix("torch.") if isinstance(args[6], Named) else ""
        dtype, extra = (named if named in DTYPES else None), args[7:]
    if dtype is None:
        raise Refused("a tensor without a type of number")
    bits = extra[0] if extra and isinstance(extra[0], dict) else {}
    reason = "is a conjugate or negative view; save resolve_conj() of it" if bits else ""
    return PickledTensor(storage, dtype, offset, shape, stride, reason)


def fill(target: Array, state: Any) -> None:
    """Give an array its state, (version, shape, dtype, is Fortran, bytes).

    Raises Refused for a state of another form.
    """
    if not isinstance(state, tuple) or len(state) != 5 or not _naturals(state[1]):
        raise Refused("a numpy array without shape, type and bytes")
    kind = state[2].state if isinstance(state[2], Instance) else None
    code, order = kind if isinstance(kind, tuple) and len(kind) == 2 else (kind, "<")
    target.shape, target.fortran = state[1], state[3] is True
    if isinstance(code, str) and order in ("<", "|", "=") and isinstance(state[4], (Data, bytes)):
        target.dtype, target.data = NUMPY.get(code.lstrip("<|="), ""), state[4]


def _natural(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _naturals(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= MAX_AXES and all(map(_natural, value))
