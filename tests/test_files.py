"""Headers of CSV and TSV files: a name that stands twice is refused, whatever else the columns are called."""

from __future__ import annotations

import gzip

import pytest

from carousel.errors import DataError
from carousel.inputs.files import read_file


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
def test_a_name_that_stands_twice_in_a_header_is_refused(tmp_path, name) -> None:
    text = '\ufeffpulse,"at, hour",pulse\n1,2,3\n'
    if name == "a.tsv":
        text = text.replace('"at, hour"', "at").replace(",", "\t")
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    with pytest.raises(DataError) as refused:
        read_file(path)
    assert str(refused.value) == f"{path}: there is more than one column 'pulse'; rename or drop the others."


def test_a_column_that_is_called_like_a_double_is_none(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,x_duplicated_0,,\n1,2,3,4\n")
    assert read_file(path).select("x", "x_duplicated_0").rows() == [(1, 2)]
