"""Text of other hands is shown as it is, and means nothing where it goes."""

import csv as program
import io

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comparisons.reporting import blocks as b
from comparisons.reporting import csv, markdown

quick = settings(derandomize=True, max_examples=60, deadline=None)


@pytest.mark.fault("Markdown in names of others", "shown as it is written, and means nothing")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[a](http://b)", r"[a\](http\://b)"),
        ("![x](y)", r"![x\](y)"),
        ("`rm`", r"\`rm\`"),
        ("**bold**", r"\*\*bold\*\*"),
        ("_em_", r"\_em\_"),
        ("vae_bernoulli", "vae_bernoulli"),
        ("<script>", "&lt;script&gt;"),
        ("a\r\n# b", "a  # b"),
        ("\x1b[31m", r"\x1b[31m"),
        ("[nats] a * b ~ N(0, I)", "[nats] a * b ~ N(0, I)"),
    ],
)
def test_marks_of_a_text_mean_nothing(text: str, shown: str) -> None:
    assert markdown.escape(text) == shown


@pytest.mark.fault("Markdown in names of others", "shown as it is written, and means nothing")
@pytest.mark.parametrize("text", ["# a", "- a", "+ a", "1. a", "12) a", "---", "===", "  # a"])
def test_a_line_begins_nothing(text: str) -> None:
    assert "\\" in markdown.page([b.Paragraph(text)])


@pytest.mark.fault("Markdown in names of others", "shown as it is written, and means nothing")
@quick
@given(st.text(alphabet="`a|<\\ ", min_size=1, max_size=12))
def test_a_span_of_code_ends_where_it_should(text: str) -> None:
    span = markdown.code(text)
    fence = span[: len(span) - len(span.lstrip("`"))]
    assert span.endswith(fence) and fence not in span[len(fence) : -len(fence)]


@pytest.mark.fault("Markdown in names of others", "shown as it is written, and means nothing")
@quick
@given(st.text(max_size=20))
def test_a_link_has_one_address_in_one_line(text: str) -> None:
    assert not set(markdown.address(text)) & set(" \n\t()<>\\")


@pytest.mark.fault("formulas in names of others", "text, to a spreadsheet")
@quick
@given(st.text(alphabet="=+-@\t\ra1.,\"'", max_size=8))
def test_no_text_is_a_formula(text: str) -> None:
    out = csv.for_people(pd.DataFrame({"method": [text, "x"], "value": [-1.5, 2.0]}))
    cell = next(iter(program.DictReader(io.StringIO(out, newline=""))))
    assert cell["value"] == "-1.5"
    assert not cell["method"][:1] or cell["method"][0] not in "=+-@\t\r" or csv.NUMBER.fullmatch(text)
