"""Names kinds of files that are not read, by how they begin, so that a refusal says what the file is. Reads no more."""

_BEGINNINGS = (
    (b"PK\3\4", "a zip archive or document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"PAR1", "a Parquet table"),
    (b"%PDF-", "a PDF"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
)
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257
_MEDIA_BRANDS = {
    b"avif": "an AVIF image",
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), "an HEIC image"),
}
"""Of ISO base media files (ISO/IEC 14496-12), whose type is at byte 8; others are videos."""


def foreign_kind(data: bytes) -> str:
    """What a file that is not read seems to be; "" if that is not known."""
    if data[_TAR_MAGIC_AT:].startswith(_TAR_MAGIC):
        return "a tar archive"
    if data[4:8] == b"ftyp":
        return _MEDIA_BRANDS.get(data[8:12], "a video")
    return next((kind for beginning, kind in _BEGINNINGS if data.startswith(beginning)), "")
