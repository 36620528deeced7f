"""Files are written whole or not at all, JSON is JSON, and nothing in a page is taken for HTML that is not."""

import json
import math

import numpy as np
import pytest

from rdm_jax import reporting


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "results.json"
    reporting.write(path, "old")
    with pytest.raises(UnicodeEncodeError):
        reporting.write(path, "\udc80")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_json_has_no_nan():
    assert json.loads(reporting.dumps({"a": [1, 2.5, None]})) == {"a": [1, 2.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        reporting.dumps({"a": math.nan})


def test_a_page_escapes_plain_text_and_keeps_the_body():
    page = reporting.page("<title>", "a < b", "R&D", reporting.table(["x"], [["<b>1</b>"]]))
    assert "&lt;title&gt;" in page and "a &lt; b" in page and "R&amp;D" in page and "<td><b>1</b></td>" in page
    assert "http" not in page.split("<body>")[1], "opens without a network"


def test_provenance_leaves_out_what_is_not_installed():
    run = reporting.provenance(["numpy", "no-such-package"])
    assert list(run["packages"]) == ["numpy"]
    assert "numpy" in reporting.facts(run)


def test_plain_keeps_digits_and_refuses_nothing():
    assert reporting.plain(np.float32(1) / 3) == 0.333333
    assert reporting.plain(12345678.0) == 12345700.0
    assert reporting.plain([np.inf, (1, None), "x", True]) == [None, [1, None], "x", True]
