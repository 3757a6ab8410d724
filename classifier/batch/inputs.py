"""Finds what is to be read: files, directories, globs and object-store URLs, in a stable order, none of them twice."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from classifier.batch.names import spelt
from classifier.errors import DataRejected, InvalidSetting, MissingExtra

FORMATS = ("jsonl", "csv", "parquet")
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_COMPRESSIONS = {".gz": "gz", ".zst": "zst"}
KNOWN = ", ".join(_SUFFIXES) + "; all but Parquet also with " + " or ".join(_COMPRESSIONS)
_HIDDEN = (".", "_")
"""Files and folders so named are the marks and left-overs of other programs, as for Spark and Arrow."""
_VERSIONS = ("etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "modified", "created")


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read.

    Attributes:
        name: What it is called in output and messages: the path or URL, without credentials.
        url: What it is opened by: an absolute path, or a URL.
        size: Bytes as stored.
        format: One of FORMATS.
        compression: "gz", "zst" or "".
        stamp: Changes when the file changes: its size with its etag, or with the time of its last change;
            with its format where its suffix tells another or none.
    """

    name: str
    url: str
    size: int
    format: str
    compression: str
    stamp: str


def find(
    inputs: Sequence[str], *, format: str | None = None, note: Callable[[str], None] = lambda text: None
) -> list[Source]:
    """Expand files, directories, globs and URLs.

    A directory gives all files below it that have a known suffix and whose path has no part that begins with "."
    or "_", by name. A file that is reached twice, also through a link of either kind, is read once.

    Args:
        inputs: Paths, directories, globs and fsspec URLs, in the order in which they are read.
        format: One of FORMATS for files whose suffix does not tell; known suffixes of compression still count.
        note: Told which files have several names.

    Returns:
        At least one source.

    Raises:
        DataRejected: When nothing is found, an input is missing or no plain file, or a suffix is unknown.
        InvalidSetting: When the format is unknown, or a URL's scheme is, or a package for it is missing.
        MissingExtra: When fsspec is not installed.
    """
    if format is not None and format not in FORMATS:
        raise InvalidSetting(f"the format {format!r} is unknown: use one of {', '.join(FORMATS)}")
    found: dict[object, Source] = {}
    others: dict[str, str] = {}
    for given in inputs:
        matched = 0
        for key, source in _expanded(given, format):
            matched += 1
            known = found.setdefault(key, source).name
            if known != source.name:
                others[source.name] = known
        if not matched:
            raise DataRejected(f"{spelt(_named(given))} holds no file to read: check the name; known suffixes: {KNOWN}")
    if not found:
        raise DataRejected("no input was given: name files, directories, globs or URLs")
    if others:
        name, first = next(iter(others.items()))
        more = f", and {len(others) - 1:,} more names are links of this kind" if len(others) > 1 else ""
        note(f"{spelt(name)} and {spelt(first)} are one file, which is read once{more}")
    return list(found.values())


def is_unchanged(source: Source) -> bool:
    """Whether a source still is the file that was found.

    Args:
        source: The file.

    Returns:
        False also when it is gone.
    """
    try:
        return [found.stamp for found in find([source.url], format=source.format)] == [source.stamp]
    except DataRejected:
        return False


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a path or URL, and the path in it.

    Args:
        url: A local path, or a URL with a scheme.

    Returns:
        The file system, and the path.

    Raises:
        MissingExtra: When fsspec is not installed.
        InvalidSetting: When the scheme is unknown, or needs a package that is not installed.
    """
    try:
        import fsspec
        from fsspec.implementations.local import LocalFileSystem
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "batch") from None
    if "://" not in url:  # a local name may hold "::", which has a meaning in URLs
        return LocalFileSystem(), os.path.abspath(os.path.expanduser(url))  # noqa: PTH100, PTH111  # also of patterns
    scheme = url.partition("://")[0]
    try:
        return fsspec.url_to_fs(url)  # type: ignore[no-any-return]  # fsspec has no types
    except ImportError as error:
        cause = error.__cause__ or error.__context__
        package = getattr(cause, "name", None) or getattr(error, "name", None) or scheme
        raise InvalidSetting(
            f"{scheme}:// needs the package {package}, which is not installed: run  pip install {package}"
        ) from None
    except ValueError:
        raise InvalidSetting(f"the scheme {scheme}:// is unknown to fsspec: check the URL") from None


def _expanded(given: str, format: str | None) -> Iterator[tuple[object, Source]]:
    given = given.removeprefix("file://")  # so that a file is the same by path and by URL
    files, path = file_system(given)
    url = "://" in given
    wanted: Mapping[str, Mapping[str, Any]]
    try:
        if files.isdir(path):
            listed = _below(files, path)
            wanted = {name: info for name, info in listed.items() if format or kind_of(name)[0]}
        elif files.exists(path):
            wanted = {path: _real(files, files.info(path))}
        elif any(mark in path for mark in "*?["):
            wanted = _matched(files, path)
        else:
            raise DataRejected(f"{spelt(_named(given))} does not exist: check the name")
    except OSError as error:
        raise DataRejected(
            f"{spelt(_named(given))} cannot be listed ({type(error).__name__}): check name and rights"
        ) from None
    for name in sorted(wanted):
        if _type(wanted[name]) != "file":
            raise DataRejected(f"{spelt(_named(name))} is no plain file: write its rows to a file first")
        address = _address(files, given, name) if url else name
        shown = address if url or os.path.isabs(given) else os.path.relpath(name)  # noqa: PTH117
        yield _file_of(name) if _is_local(files) else address, _source(shown, address, wanted[name], format)


def _is_local(files: Any) -> bool:
    return "file" in files.protocol


def _file_of(name: str) -> object:
    """What all names of a local file have in common, whichever links lead to it."""
    found = os.stat(name)  # noqa: PTH116  # also of names that a path would change
    return (found.st_dev, found.st_ino) if found.st_ino else os.path.realpath(name)


def _type(info: Mapping[str, Any]) -> str:
    return str(info["type"])


def _real(files: Any, info: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a local link leads to; other stores have none."""
    return files.info(os.path.realpath(info["name"])) if info.get("islink") or info["type"] == "link" else info


def _matched(files: Any, pattern: str) -> Mapping[str, Mapping[str, Any]]:
    """The files of a glob; hidden names only if the pattern spells such a mark out."""
    fixed = pattern[: min(pattern.find(mark) for mark in "*?[" if mark in pattern)].rpartition("/")[0]
    hidden = _is_hidden(pattern[len(fixed) :])
    found = {}
    for name, listed in files.glob(pattern, detail=True).items():
        info = _real(files, listed)
        if _type(info) != "directory" and (hidden or not _is_hidden(name[len(fixed) :])):
            found[name] = info
    return found


def _is_hidden(path: str) -> bool:
    return any(part.startswith(_HIDDEN) for part in path.split("/"))


def _address(files: Any, given: str, name: str) -> str:
    """The URL of a file, with the host and user that some schemes take out of a path."""
    address = str(files.unstrip_protocol(name))
    host = urlsplit(given).netloc
    return address if not host or host in address else f"{urlsplit(given).scheme}://{host}/{name.lstrip('/')}"


def _below(files: Any, path: str) -> Mapping[str, Mapping[str, Any]]:
    """All files below a directory, hidden ones left out, links to directories not followed twice."""
    found: dict[str, Mapping[str, Any]] = {}
    seen = {os.path.realpath(path)}
    folders = [path]
    while folders:
        for listed in files.ls(folders.pop(), detail=True):
            name = str(listed["name"]).rstrip("/")
            if _is_hidden(name.rpartition("/")[2]):
                continue
            info = _real(files, listed)
            if _type(info) == "file":
                found[name] = info
            elif _type(info) == "directory" and (real := os.path.realpath(name)) not in seen:
                seen.add(real)
                folders.append(name)
    return found


def _source(shown: str, address: str, info: Mapping[str, Any], format: str | None) -> Source:
    known, compression = kind_of(address)
    chosen = format or known
    if not chosen:
        raise DataRejected(
            f"{spelt(_named(shown))} has an unknown suffix: name the format ({', '.join(FORMATS)}), or use one of {KNOWN}"
        )
    if chosen == "parquet" and compression:
        raise DataRejected(f"{spelt(_named(shown))}: Parquet is compressed within: decompress the file first")
    size = int(info.get("size") or 0)
    # Object stores spell it "ETag"; a name of fsspec's own may differ only in its case.
    facts = {str(name).lower(): value for name, value in info.items()}
    version = next((facts[name.lower()] for name in _VERSIONS if facts.get(name.lower())), "")
    # Read as another format a file has other rows.
    read_as = "" if chosen == known else f"-{chosen}"
    return Source(_named(shown), address, size, chosen, compression, f"{size}-{version}{read_as}")


def kind_of(name: str) -> tuple[str, str]:
    """What a name's last suffixes tell.

    Args:
        name: A path or URL.

    Returns:
        Format and compression; "" for what they do not tell.
    """
    path = PurePosixPath(urlsplit(name).path if "://" in name else name)
    compression = _COMPRESSIONS.get(path.suffix.lower(), "")
    if compression:
        path = path.with_suffix("")
    return _SUFFIXES.get(path.suffix.lower(), ""), compression


def _named(given: str) -> str:
    """A name without credentials: neither a URL's user and password nor a signature in its query."""
    if "://" not in given:
        return given
    parts = urlsplit(given)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")) if parts.netloc else given
