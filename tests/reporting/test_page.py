"""The pieces of a page: nothing that comes from outside is ever read as HTML."""

import pytest
from frames import HOSTILE

from comparisons.reporting import page
from comparisons.reporting.page import Markup, tag, text


def test_text_is_escaped_once_and_markup_never() -> None:
    assert (
        text(HOSTILE) == "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#x27;&lt;img src=x onerror=alert(1)&gt;"
    )
    assert text(text(HOSTILE)) == text(HOSTILE)
    assert text(Markup("<b>")) == "<b>" and text(3) == "3"


@pytest.mark.fault("HTML, Markdown and CSV in the name of a model or backend", "shown as text, or refused as a name")
def test_content_and_attributes_are_escaped() -> None:
    assert tag("p", HOSTILE, "a", class_=HOSTILE) == f'<p class="{text(HOSTILE)}">{text(HOSTILE)}a</p>'
    assert tag("a", tag("b", "<"), aria_label="x", id=None) == '<a aria-label="x"><b>&lt;</b></a>'


@pytest.mark.fault("HTML, Markdown and CSV in the name of a model or backend", "shown as text, or refused as a name")
@pytest.mark.parametrize("part", ["head", "body", "label"])
def test_tables_are_escaped(part: str) -> None:
    given = {"label": "l", "head": "h", "body": "b"} | {part: HOSTILE}
    made = page.table(given["label"], [given["head"]], [[given["body"]]], [0])
    assert "<script" not in made and "<img" not in made and text(HOSTILE) in made
    assert 'class="number"' in made and 'role="region"' in made and 'scope="col"' in made


def test_an_image_needs_words() -> None:
    made = page.image(b"\x89PNG", "image/png", HOSTILE, HOSTILE)
    assert made.count("<img") == 1 and f'alt="{text(HOSTILE)}"' in made and "data:image/png;base64,iVBORw==" in made
    for alt in ("", "  "):
        with pytest.raises(ValueError, match="words"):
            page.image(b"", "image/png", alt)


@pytest.mark.parametrize(
    "target", ["javascript:alert(1)", "JavaScript:x", "//evil.org", "data:text/html,x", "http://x"]
)
def test_links_stay_beside_the_page_or_are_https(target: str) -> None:
    with pytest.raises(ValueError):
        page.link(target, "x")


def test_links_to_files_and_sections_are_links() -> None:
    assert page.link("a/rows.csv", "<") == '<a href="a/rows.csv">&lt;</a>'
    assert page.link("#a", "b").startswith('<a href="#a"') and page.link("https://arxiv.org", "c")


# Markdown


def test_blocks_become_what_they_are() -> None:
    source = "# Title\n\nTwo\nlines, **bold** and `code`.\n\n- one\n- two\n  goes on\n\n"
    source += "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    heading, paragraph, items, table = page.from_markdown(source)
    assert heading == "<h3>Title</h3>"
    assert paragraph == "<p>Two lines, <strong>bold</strong> and <code>code</code>.</p>"
    assert items == "<ul><li>one\n</li><li>two\n  goes on</li></ul>"
    assert table.count("<th") == 3 and table.count("<td") == 2 and 'aria-label="Title"' in table


def test_a_paragraph_ends_where_another_block_begins() -> None:
    kinds = [block[:4] for block in page.from_markdown("text\n- item\n| a |\n| --- |\n| b |\n## head\ntext")]
    assert kinds == ["<p>t", "<ul>", "<div", "<h3>", "<p>t"]


def test_headings_keep_their_order() -> None:
    assert [b[:4] for b in page.from_markdown("## a\n\n### b\n\n## c", 4)] == ["<h4>", "<h5>", "<h4>"]


def test_what_was_escaped_for_markdown_is_shown_as_it_was() -> None:
    table = page.from_markdown("| a\\|b | &lt;i> |\n| --- | --- |\n")[0]
    assert ">a|b<" in table and ">&lt;i&gt;<" in table


@pytest.mark.parametrize("form", ["# {}", "- {}", "| {} |\n| --- |\n| {} |", "{}", "`{}`", "**{}**", "[x]({})"])
def test_markdown_from_outside_makes_no_elements(form: str) -> None:
    hostile = HOSTILE.replace("|", "")
    made = "".join(page.from_markdown(form.replace("{}", hostile)))
    assert "<script" not in made and "<img" not in made and "<a" not in made


@pytest.mark.parametrize("source", ["", "\n\n", "|", "||", "#", "- ", "|a", "**", "``", "|\n|\n|"])
def test_odd_markdown_is_no_error(source: str) -> None:
    page.from_markdown(source)
