"""What a SRC word is: recognised by its content, or named with `--format`."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import braceexpand

from toolkit.data.convert import parquet_file, tsv
from toolkit.data.convert.keep import Kept
from toolkit.data.convert.pictures import EXTENSIONS
from toolkit.data.tar_headers import TarDamage, key_and_field, read_entries
from toolkit.errors import ConfigError, DataError

PICTURE_KINDS = ("folder", "tar", "webdataset", "tsv", "parquet")
TEXT_KINDS = ("webdataset", "tsv", "parquet", "csv", "jsonl", "json", "txt", "classes")
BY_EXTENSION = {
    **{"parquet": "parquet", "csv": "csv", "tsv": "tsv", "jsonl": "jsonl", "ndjson": "jsonl", "json": "json"},
    **{"txt": "txt", "tar": "tar"},
}
BESIDE_PICTURES = frozenset(("txt", "json", "cls", "caption", "npy", "npz"))
"""Fields that tell a WebDataset sample from a picture that merely lies in a tar."""
PEEKED_MEMBERS = 200
TFRECORD = ("tfrecord", "tfrecords")


@dataclass(frozen=True)
class Source:
    """A file or folder and how it is read."""

    kind: str
    path: str
    column: str = ""

    def stamp(self) -> dict[str, str | int]:
        """What must not change between a broken-off run and its continuation."""
        facts: dict[str, str | int] = {"kind": self.kind, "path": self.path}
        if self.column:
            facts["column"] = self.column
        if not os.path.exists(self.path):  # a shipped set of class names
            return facts
        facts["path"] = os.path.abspath(self.path)
        found = os.stat(self.path)
        return facts if self.kind == "folder" else facts | {"bytes": found.st_size, "changed_ns": found.st_mtime_ns}


def expand(words: Sequence[str]) -> list[Path]:
    """Existing files and folders of SRC words; brace patterns and `a::b` are understood."""
    paths: list[Path] = []
    for word in words:
        for part in [word] if Path(word).exists() else word.split("::"):
            paths += [Path(part)] if Path(part).exists() else [Path(p) for p in braceexpand.braceexpand(part)]
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise DataError(f"{len(missing)} of {len(paths)} SRC do not exist, the first is {missing[0]}; correct the path")
    return paths


def recognise_pictures(words: Sequence[str], forced: str = "", column: str = "") -> tuple[list[Source], list[str]]:
    """Sources of pictures in the order given, and TSV files of stored features among them; `column` of parquet tables."""
    sources: list[Source] = []
    features: list[str] = []
    for path in expand(words):
        if forced == "parquet":
            for file in _forced_files(path, forced):
                _add_table(file, sources, column, named=True)
        elif forced:
            sources += [Source(forced, str(file)) for file in _forced_files(path, forced)]
        elif path.is_dir():
            if next(files_in(path, tuple(EXTENSIONS)), None):
                sources.append(Source("folder", str(path)))
            for file in files_in(path, ("tar", "tsv", "parquet", *TFRECORD)):
                _add_pictures(file, sources, features, column, named=False)
        else:
            _add_pictures(path, sources, features, column, named=True)
    if not sources:
        raise DataError(f"found no pictures in {' '.join(words)}; {_known(PICTURE_KINDS)}")
    if column and not any(source.kind == "parquet" for source in sources):
        raise ConfigError(f"--column {column}: none of the SRC is a parquet table of pictures; leave it out")
    return sources, features


def _forced_files(path: Path, kind: str) -> list[Path]:
    """What `--format` speaks of: the folder itself, the file, or the files of that kind in a folder."""
    if kind == "folder" and not path.is_dir():
        raise DataError(f"--format folder: {path} is a file; give the folder or leave --format out")
    if kind == "folder" or not path.is_dir():
        return [path]
    extensions = {"webdataset": ["tar"], "csv": ["csv", "tsv"], "classes": ["json"]}.get(kind, [kind])
    found = list(files_in(path, extensions, gzipped=True))
    if not found:
        raise DataError(f"--format {kind}: {path} holds no file called *.{extensions[0]}; name the files themselves")
    return found


def _add_pictures(path: Path, sources: list[Source], features: list[str], column: str, named: bool) -> None:
    """`named`: the user named this very file, so that nothing may be passed over in silence."""
    if path.suffix.lower() == ".parquet":
        _add_table(path, sources, column, named)
    elif path.suffix.lower().lstrip(".") in TFRECORD:
        raise DataError(
            f"{path} is a TFRecord, which is not read; let img2dataset write webdataset, files or parquet, or convert it"
        )
    elif path.suffix.lower() == ".tsv":
        content = tsv.content_of(path)
        if content == "features":
            features.append(str(path))
        elif content == "pictures":
            sources.append(Source("tsv", str(path)))
        elif named:
            raise DataError(
                f"{path}: its rows hold no base64 pictures; give it to `dime shards texts`, or force --format tsv"
            )
    elif tarfile_at(path):
        sources.append(Source(kind_of_tar(path), str(path)))
    elif path.suffix.lower().lstrip(".") in EXTENSIONS:
        raise DataError(f"{path} is a single picture; give the folder it lies in")
    else:
        raise DataError(f"{path} is no folder, tar, parquet table or TSV of pictures; {_known(PICTURE_KINDS)}")


def _add_table(path: Path, sources: list[Source], column: str, named: bool) -> None:
    """A parquet table; in a folder those without pictures are passed over, as img2dataset has one beside each shard."""
    shard = path.with_suffix("")
    beside = not named and (shard.is_dir() or shard.with_suffix(".tar").is_file())
    try:
        found = parquet_file.picture_column(str(path), column)
    except (ConfigError, DataError) as error:
        if (beside and isinstance(error, DataError)) or (column and not named and isinstance(error, ConfigError)):
            return
        raise
    if found:
        sources.append(Source("parquet", str(path), found))
    elif named:
        raise DataError(
            f"{path}: none of its columns holds pictures, as bytes or as {{bytes, path}}; give its sentences to "
            "`dime shards texts`, name the column with --column, or download its URLs with img2dataset first"
        )


def check_kept(sources: Sequence[Source], wanted: Sequence[Kept]) -> None:
    """Raises ConfigError where fields to be kept beside the pictures cannot be there."""
    if not wanted:
        return
    asked = ",".join(kept.field for kept in wanted)
    for source in sources:
        if source.kind == "tsv":
            raise ConfigError(f"--keep {asked}: {source.path} is a TSV, which holds pictures alone; leave --keep out")
        if source.kind == "tar":
            raise ConfigError(
                f"--keep {asked}: {source.path} seems to hold pictures alone; if it has more, say --format webdataset"
            )
        if source.kind == "parquet":
            parquet_file.check_kept(source.path, source.column, wanted)


def tarfile_at(path: Path) -> bool:
    """Is it a tar; raises DataError for a compressed one, whose members cannot be read at an offset."""
    try:
        next(read_entries(path), None)
        return True
    except TarDamage as error:
        with open(path, "rb") as file:
            start = file.read(6)
        if (
            start[:2] == b"\x1f\x8b"
            or start[:3] == b"BZh"
            or start == b"\xfd7zXZ\0"
            or start[:4] == b"\x28\xb5\x2f\xfd"
        ):
            raise DataError(f"{path} is compressed; unpack it to a plain .tar first") from error
        if path.suffix.lower() == ".tar":
            raise DataError(f"{path} is no readable tar ({error}); copy it again or leave it out") from error
        return False


def kind_of_tar(path: Path) -> str:
    """webdataset when pictures have text, json or class numbers of the same key beside them."""
    keys: dict[str, set[str]] = {}
    try:
        for member in islice(read_entries(path), PEEKED_MEMBERS):
            key, field = key_and_field(member.name)
            if key:
                keys.setdefault(key, set()).add(field)
    except TarDamage:
        pass  # cut short: told when it is listed
    both = any(fields & EXTENSIONS and fields & BESIDE_PICTURES for fields in keys.values())
    return "webdataset" if both else "tar"


def recognise_texts(words: Sequence[str], forced: str = "", column: str = "") -> tuple[list[Source], list[str]]:
    """Sources of sentences in the order given, and TSV files of stored features among them."""
    sources: list[Source] = []
    features: list[str] = []
    for path in expand(words):
        if path.is_dir():
            inside = list(_forced_files(path, forced) if forced else files_in(path, tuple(BY_EXTENSION), gzipped=True))
            texts = [file for file in inside if _text_kind(file, forced, column, named=False) not in ("", "features")]
            if not texts:
                raise DataError(f"found no sentences in {path}; {_known(TEXT_KINDS)}")
        else:
            inside = [path]
        for file in inside:
            kind = _text_kind(file, forced, column, named=not path.is_dir())
            if kind == "features":
                features.append(str(file))
            elif kind:
                sources.append(Source(kind, str(file), column))
    return sources, features


def _text_kind(path: Path, forced: str, column: str, named: bool) -> str:
    """Kind of a file, `features`, or an empty string for a file of a folder that holds no sentences."""
    if forced:
        return forced
    suffixes = [suffix.lstrip(".").lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    kind = BY_EXTENSION.get(suffixes[-1] if suffixes else "", "")
    if kind == "json" and (path.name.endswith("_stats.json") or (not named and _beside_a_picture(path))):
        return ""  # img2dataset's report of a shard or a picture
    if kind == "tsv":
        if path.name.endswith(".linelist.tsv") and not named:
            return ""
        content = tsv.content_of(path)
        if content != "texts":
            if named and content == "pictures":
                raise DataError(f"{path}: its rows hold pictures; give it to `dime shards images`")
            return "features" if content == "features" else ""
        if named and not column and not path.with_suffix(".lineidx").is_file() and tsv.columns_of(path) > 2:
            raise ConfigError(
                f"{path} has {tsv.columns_of(path)} columns and no .lineidx; if it is a table with a header say with --column "
                "which one holds the sentences, if it is a TSV of DIME-FM say --format tsv"
            )
        return "csv" if column else kind
    if kind == "json":
        from toolkit.data.convert.tables import is_class_list

        return "classes" if is_class_list(path) else kind
    if kind == "tar":
        return "webdataset" if tarfile_at(path) else ""
    if not kind and named:
        raise DataError(f"{path}: cannot tell what it is; name it with --format ({', '.join(TEXT_KINDS)})")
    return kind


def _beside_a_picture(path: Path) -> bool:
    return any(path.with_suffix(f".{extension}").is_file() for extension in ("jpg", "png", "webp"))


def files_in(folder: Path, extensions: Sequence[str], gzipped: bool = False) -> Iterator[Path]:
    """Files below `folder` with one of the extensions, sorted by path; hidden ones are not looked at."""
    ends = tuple(f".{extension}" for extension in extensions)
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            plain = name.lower().removesuffix(".gz") if gzipped else name.lower()
            if plain.endswith(ends) and not name.startswith("."):
                yield Path(here) / name


def _known(kinds: Sequence[str]) -> str:
    return f"give one of these, or name it with --format: {', '.join(kinds)}"
