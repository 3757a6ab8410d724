"""What the command line's verbs for import and export do, on a server or on the local store."""

from pathlib import Path

from classifier.config import Settings
from classifier.errors import ServiceFailed
from classifier.local_examples import open_client
from classifier.transfer.exporting import Lister, Wanted, revision_of, stored_examples
from classifier.transfer.importing import Counts, Import
from classifier.transfer.reading import ExampleFile, Rejection, source_of
from classifier.transfer.rejects import open_rejects
from classifier.transfer.schema import Choices
from classifier.transfer.writing import check_output, write_examples
from index.example import State


def import_files(
    files: list[Path],
    settings: Settings,
    server: str | None,
    *,
    source: str = "",
    state: State | None = None,
    actor: str = "",
    format: str | None = None,
    rejects: Path | None = None,
    include_rows: bool = False,
    licence: str = "",
) -> tuple[Counts, list[Rejection]]:
    """Store the good rows of files, and say what is wrong with the others.

    Args:
        files: JSON Lines, CSV or Parquet.
        settings: Where the local store is.
        server: Host and port, or None for the local store.
        source: The source of rows that name none; "" takes the file's name.
        state: The state of every row; None takes its own.
        actor: Who imports; a token's name goes before it.
        format: jsonl, csv or parquet, where a name's suffix does not tell.
        rejects: The file to which rejected rows go.
        include_rows: Whether they go there with their content.
        licence: The licence of rows that name none.

    Returns:
        The counts, and the first rejected rows.

    Raises:
        DataRejected: When a file cannot be read, or has too many bad rows.
        InvalidSetting: When the rejects cannot be written there.
        ServiceFailed: When the server cannot be asked, or refuses all.
        StoreUnavailable: When the local store cannot be used.
    """
    sources = [(path, source_of(path, format)) for path in files]
    with open_rejects(rejects, files, include_rows=include_rows) as rejected, open_client(settings, server) as client:
        work = Import(client, _known(client), rejected, actor)
        for path, found in sources:
            work.run(ExampleFile(found, Choices(source, path.name, state, licence)))
    return work.counts, rejected.first


def export_file(path: Path, settings: Settings, server: str | None, wanted: Wanted, format: str | None = None) -> int:
    """Write the examples of a store to a file.

    Args:
        path: The file.
        settings: Where the local store is.
        server: Host and port, or None for the local store.
        wanted: Which examples.
        format: jsonl, csv or parquet; None tells by the name's suffix.

    Returns:
        How many examples were written.

    Raises:
        InvalidSetting: When the format is unknown, or the file cannot stand there.
        DataRejected: When an example cannot be written in this format.
        ServiceFailed: When the server cannot be asked, or refuses.
        StoreUnavailable: When the local store cannot be used.
    """
    check_output(path, format)
    with open_client(settings, server) as client:
        return write_examples(path, stored_examples(client, wanted), format)


def _known(client: Lister) -> int | None:
    try:
        return revision_of(client)
    except ServiceFailed as error:
        if error.reason != "PERMISSION_DENIED":  # a token may write, and not read
            raise
        return None
