"""Tables from files: CSV, Parquet, JSON lines."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from carousel.errors import DataError, MissingExtra

if TYPE_CHECKING:
    import polars

__all__ = ["SUFFIXES", "read_file", "table_bytes"]

CONLL = (".conll", ".iob", ".bio", ".conllu")
SUFFIXES = (*CONLL, ".csv", ".csv.gz", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson")
_SEPARATED = (".csv", ".csv.gz", ".tsv")
_MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]


def read_file(path: str | Path, *, texts: Sequence[str] = (), labels: Sequence[str] = ()) -> polars.DataFrame:
    """The table in a CSV, TSV, Parquet or JSON-lines file; dates and timestamps in text are recognised.

    The columns `texts` are taken as they stand: "None" is a word there, and 007 one too; so are those of `labels` that
    hold other text as well. In .conll, .iob, .bio and .conllu files each line is a word, see `corpus.read_conll`.

    In a .tsv quotes are characters like others, unless every field with quotes is quoted as in a CSV.

    Of text, only ISO 8601 (and 2024/03/01) is taken as a time: day and month of 01/02/2024 cannot be told apart.
    Whole numbers that would change as integers, such as 007, stay text.

    Raises DataError where the file is missing, unreadable, empty, of a kind that its suffix does not tell, or has two
    columns of one name, and MissingExtra without polars.
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
    if suffix in CONLL:
        from carousel.inputs.corpus import read_conll

        return read_conll(path)
    try:
        if suffix in (".parquet", ".pq"):
            frame = pl.read_parquet(path)
        elif suffix in (".jsonl", ".ndjson"):
            frame = pl.read_ndjson(path, infer_schema_length=None)
        else:
            form = _form(path, suffix)
            raw = pl.read_csv(path, **form, infer_schema=False, null_values=_MISSING)
            codes = {name: pl.String() for name in raw.columns if _is_code(raw[name])}
            frame = pl.read_csv(path, **form, schema_overrides=codes, infer_schema_length=None, null_values=_MISSING)
            frame = frame.with_columns(_iso_times(frame[name]) for name in frame.columns)
            words = [name for name in labels if frame.schema.get(name) == pl.String]
            kept = [name for name in frame.columns if name in (*texts, *words)]
            if kept:
                frame = frame.with_columns(pl.read_csv(path, **form, infer_schema=False, columns=kept))
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        if suffix not in (".parquet", ".pq"):
            _refuse_encoding(path)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if reason.startswith("found more fields"):
            reason = _longest_row(path, form)
        raise DataError(f"{path}: the file cannot be read as {suffix[1:]} ({reason}); check its contents.") from None
    if suffix in _SEPARATED:
        _refuse_doubles(path, form)
    if not frame.height:
        raise DataError(f"{path}: the table has no rows; give it at least one observation.")
    return frame


def _refuse_encoding(path: Path) -> None:
    """DataError with the offset of the first byte that is not UTF-8, where there is one."""
    from carousel.inputs.texts import read_text

    read_text(path)


def _form(path: Path, suffix: str) -> dict[str, Any]:
    """Arguments of `polars.read_csv`. Lines of a .tsv are its rows where all have as many fields as the first."""
    if suffix != ".tsv":
        return {"separator": ",", "quote_char": '"'}
    quoted: dict[str, Any] = {"separator": "\t", "quote_char": '"'}
    raw = path.read_bytes()
    if b'"' not in raw:
        return quoted
    lines = raw.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n")
    tabs = lines[0].count(b"\t")
    broken = next((n for n, line in enumerate(lines, 1) if line and line.count(b"\t") != tabs), None)
    if broken is None:
        fields = (field for line in lines if b'"' in line for field in line.split(b"\t") if b'"' in field)
        return quoted if all(map(_QUOTED.fullmatch, fields)) else quoted | {"quote_char": None}
    with _opened(path) as file:
        rows = csv.reader(file, delimiter="\t", strict=True)
        try:
            if all(len(row) == tabs + 1 for row in rows if row):
                return quoted
        except csv.Error:
            pass
    found = lines[broken - 1].count(b"\t") + 1
    raise DataError(
        f"{path}, line {broken:,}: it has {found} fields where the header has {tabs + 1}, and its quotes do not pair as"
        " in a CSV; repair the line."
    )


_QUOTED = re.compile(rb'"(?:[^"]|"")*"')


def _is_code(texts: polars.Series) -> bool:
    """Whether these are all digits, of which some would not survive as integers: 007, or beyond 64 bits."""
    import polars as pl

    given = texts.drop_nulls()
    if not len(given) or not given.str.contains(r"^[+-]?\d+$").all():
        return False
    lossy = given.str.contains(r"^[+-]?0\d") | given.cast(pl.Int64, strict=False).is_null()
    return bool(lossy.any())


def _iso_times(column: polars.Series) -> polars.Series:
    """Text that is a date or a timestamp in every row as such, with an offset in UTC; anything else as it is."""
    import polars as pl

    given = column.drop_nulls() if column.dtype == pl.String else None
    if given is None or not len(given):
        return column
    for pattern, form, kind in _ISO:
        if given.str.contains(pattern).all():
            plain = column.str.replace_all("/", "-").str.replace(" ", "T")
            found = plain.str.to_date(form, strict=False) if kind == "date" else _stamps(plain, form)
            return found if found.null_count() == column.null_count() else column
    return column


def _stamps(texts: polars.Series, form: str) -> polars.Series:
    return texts.str.to_datetime(form, time_unit="us", strict=False)


_DAY = r"^\d{4}(-\d{2}-|/\d{2}/)\d{2}"
_OFFSET = r"(Z|[+-]\d{2}:?\d{2})$"
_ISO = (
    (_DAY + "$", "%Y-%m-%d", "date"),
    (_DAY + r"[ T]\d{2}:\d{2}$", "%Y-%m-%dT%H:%M", "stamp"),
    (_DAY + r"[ T]\d{2}:\d{2}:\d{2}(\.\d{1,9})?$", "%Y-%m-%dT%H:%M:%S%.f", "stamp"),
    (_DAY + r"[ T]\d{2}:\d{2}" + _OFFSET, "%Y-%m-%dT%H:%M%#z", "stamp"),
    (_DAY + r"[ T]\d{2}:\d{2}:\d{2}(\.\d{1,9})?" + _OFFSET, "%Y-%m-%dT%H:%M:%S%.f%#z", "stamp"),
)


def _longest_row(path: Path, form: dict[str, Any]) -> str:
    """Why the table is ragged: the first row that has more fields than the header."""
    with _opened(path) as file:
        rows = _rows(file, form)
        header = next(rows)
        for number, row in enumerate(rows, 1):
            if len(row) > len(header):
                return f"row {number} has {len(row)} fields where the header has {len(header)}"
    return "a row has more fields than the header"


def _refuse_doubles(path: Path, form: dict[str, Any]) -> None:
    """DataError for a name that the header holds twice: polars would call the second one x_duplicated_0."""
    with _opened(path) as file:
        header = next(_rows(file, form), [])
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise DataError(f"{path}: there is more than one column {twice[0]!r}; rename or drop the others.")


def _rows(file: TextIO, form: dict[str, Any]) -> Iterator[list[str]]:
    if form["quote_char"] is None:
        return csv.reader(file, delimiter=form["separator"], quoting=csv.QUOTE_NONE)
    return csv.reader(file, delimiter=form["separator"])


def _opened(path: Path) -> TextIO:
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    return cast(TextIO, opened(path, "rt", encoding="utf-8-sig", errors="replace", newline=""))


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
