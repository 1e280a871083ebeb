"""Which values of a tensor are no finite numbers, told from their bits.

Knows bytes and safetensors' names of types. Knows no torch, so that a push does without it.
"""

# The type as numpy can read it, its bits without the sign, and the least of those that is no number: the exponent's
# bits all set, in IEEE 754; in E4M3 the mantissa's too (Micikevicius et al. 2022).
_BITS = {
    "F64": ("<u8", 0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7FFF_FFFF, 0x7F80_0000),
    "F16": ("<u2", 0x7FFF, 0x7C00),
    "BF16": ("<u2", 0x7FFF, 0x7F80),
    "F8_E5M2": ("u1", 0x7F, 0x7C),
    "F8_E4M3": ("u1", 0x7F, 0x7F),
}


def wrong(content: bytes | memoryview, dtype: str) -> int:
    """How many of these values are NaN or infinite; none of a type that has no such values."""
    if dtype not in _BITS or not len(content):
        return 0
    import numpy  # noqa: PLC0415 - heavy, and most of the registry does without

    kind, unsigned, least = _BITS[dtype]
    bits = numpy.frombuffer(content, kind)
    bits = bits & bits.dtype.type(unsigned)
    return int(numpy.count_nonzero(bits >= least)) if bits.max() >= least else 0


def told(count: int, values: int) -> str:
    """For a person."""
    return f"not finite: {count:,} of {values:,} values"
