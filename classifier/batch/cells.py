"""Cells of Parquet as Python's values: times that Python cannot hold are none, and large rows are not made at all."""

from collections.abc import Iterator
from typing import Any

from classifier.batch.delimited import Content
from classifier.batch.reasons import Reason, RowFault


def rows_of(batch: Any, most: int) -> Iterator[Content]:
    """A batch's rows.

    Args:
        batch: A record batch.
        most: The most bytes of a row.

    Yields:
        Of each row its values by column, or why there are none.
    """
    names, columns = batch.schema.names, [_plain(column) for column in batch.columns]
    if sum(column.nbytes for column in columns) > most:  # then no two of its rows are made at once
        for index in range(batch.num_rows):
            if sum(column.slice(index, 1).nbytes for column in columns) > most:
                yield RowFault(
                    Reason.LINE_TOO_LONG, f"the row has over {most} bytes: leave out large fields, or raise the limit"
                )
            else:
                yield _careful(names, columns, index)
        return
    try:
        cells = [column.to_pylist(maps_as_pydicts="lossy") for column in columns]
    except (ValueError, OverflowError):
        yield from (_careful(names, columns, index) for index in range(batch.num_rows))
        return
    for values in zip(*cells, strict=True):
        yield {name: _lean(value) for name, value in zip(names, values, strict=True)}


def _careful(names: list[str], columns: list[Any], index: int) -> Content:
    """One row of a batch in which some cell is no text or no Python value."""
    try:
        values = [_value(column[index]) for column in columns]
    except UnicodeDecodeError:
        return RowFault(Reason.BROKEN_UTF8, "a cell is not UTF-8: re-encode the column as UTF-8")
    except (ValueError, OverflowError):
        return RowFault(Reason.BROKEN_PARQUET, "a cell is out of its type's range: write the row anew")
    return {name: _lean(value) for name, value in zip(names, values, strict=True)}


def _value(cell: Any) -> Any:
    """What a cell holds; a time that Python cannot hold is none, and takes nothing else of its row along."""
    import pyarrow as pa

    if not cell.is_valid:
        return None
    if isinstance(cell, pa.MapScalar):
        return {_value(one["key"]): _value(one["value"]) for one in cell.values}
    if isinstance(cell, pa.ListScalar):
        return [_value(one) for one in cell.values]
    if isinstance(cell, pa.StructScalar):
        return {name: _value(one) for name, one in cell.items()}
    try:
        return cell.as_py()
    except (ValueError, OverflowError):
        if pa.types.is_temporal(cell.type):
            return None
        raise


def _plain(column: Any) -> Any:
    """Times in UTC or without zone, and in microseconds where they are finer, for which Python has no type."""
    wanted = _plain_type(column.type)
    return column if wanted == column.type else column.cast(wanted, safe=False)


def _plain_type(kind: Any) -> Any:
    import pyarrow as pa

    is_a = pa.types
    if is_a.is_timestamp(kind):  # what is stored is UTC, whatever the zone is called
        return pa.timestamp("us" if kind.unit == "ns" else kind.unit, "UTC" if kind.tz else None)
    if is_a.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if is_a.is_struct(kind):
        return pa.struct([field.with_type(_plain_type(field.type)) for field in kind])
    if is_a.is_map(kind):
        return pa.map_(kind.key_type, kind.item_field.with_type(_plain_type(kind.item_type)))
    if is_a.is_list(kind) or is_a.is_large_list(kind):
        made = pa.list_ if is_a.is_list(kind) else pa.large_list
        return made(kind.value_field.with_type(_plain_type(kind.value_type)))
    return kind


def _lean(value: Any) -> Any:
    """A value without the nulls that a column of structs gives to fields which a row has not."""
    if isinstance(value, dict):
        return {name: _lean(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_lean(inner) for inner in value]
    return value
