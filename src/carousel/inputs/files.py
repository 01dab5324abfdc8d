"""Tables from files: CSV, Parquet, JSON lines."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from carousel.errors import DataError, MissingExtra

if TYPE_CHECKING:
    import polars

__all__ = ["SUFFIXES", "read_file", "table_bytes"]

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson")
_MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]


def read_file(path: str | Path) -> polars.DataFrame:
    """The table in a CSV, TSV, Parquet or JSON-lines file; dates and timestamps in text are recognised.

    Raises DataError where the file is missing, unreadable, empty, or of a kind that its suffix does not tell, and
    MissingExtra without polars.
    """
    try:
        import polars as pl
    except ImportError:
        raise MissingExtra("polars", "train", "Reading tables from files") from None
    path = Path(path)
    suffix = "".join(path.suffixes[-2:]).lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: the suffix {suffix!r} is unknown; use one of {', '.join(SUFFIXES)}.")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{path}: the file cannot be read ({reason}); check its name and permissions.") from None
    if empty:
        raise DataError(f"{path}: the file is empty; give it a header and at least one row.")
    try:
        if suffix in (".parquet", ".pq"):
            frame = pl.read_parquet(path)
        elif suffix in (".jsonl", ".ndjson"):
            frame = pl.read_ndjson(path, infer_schema_length=None)
        else:
            separator = "\t" if suffix == ".tsv" else ","
            frame = pl.read_csv(
                path,
                separator=separator,
                try_parse_dates=True,
                infer_schema_length=None,
                null_values=_MISSING,
            )
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: the file cannot be read as {suffix[1:]} ({reason}); check its contents.") from None
    if not frame.height:
        raise DataError(f"{path}: the table has no rows; give it at least one observation.")
    return frame


def table_bytes(frame: polars.DataFrame, suffix: str) -> bytes:
    """The table as a file of that suffix holds it; `read_file` reads it back.

    Raises ValueError for a suffix that it does not write.
    """
    to = io.BytesIO()
    if suffix in (".parquet", ".pq"):
        frame.write_parquet(to)
    elif suffix in (".jsonl", ".ndjson"):
        frame.write_ndjson(to)
    elif suffix in (".csv", ".tsv"):
        _readable_times(frame).write_csv(to, separator="\t" if suffix == ".tsv" else ",")
    else:
        raise ValueError(f"tables are not written as {suffix!r}")
    return to.getvalue()


def _readable_times(frame: polars.DataFrame) -> polars.DataFrame:
    """Timestamps as 2024-03-01 12:00:00, with a fraction and the offset from UTC only where there is one."""
    import polars as pl

    stamps = {name: kind for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)}
    return frame.with_columns(
        pl.col(name).dt.to_string("%Y-%m-%d %H:%M:%S%.f" + ("%:z" if kind.time_zone else ""))
        for name, kind in stamps.items()
    )
