"""The blocks of a report and their two printers: nothing that comes from outside is ever read as HTML or Markdown."""

import re
from dataclasses import replace

import pytest
from frames import HOSTILE, pipes
from markupsafe import Markup

from comparisons.reporting import html, markdown
from comparisons.reporting.blocks import (
    Beside,
    Block,
    Code,
    Command,
    Figure,
    Figures,
    Fold,
    Gap,
    Heading,
    Item,
    Items,
    Link,
    Long,
    Paragraph,
    Section,
    Short,
    Strong,
    Table,
    Text,
    Typed,
    Word,
    figures,
    numbered,
)

FIGURE = Figure(b"\x89PNG", "a/b.png", HOSTILE, caption=HOSTILE)
EVERY: tuple[Block, ...] = (
    Heading(HOSTILE),
    Paragraph(HOSTILE, "note"),
    Paragraph((HOSTILE, Code(HOSTILE), Strong(HOSTILE))),
    Paragraph((Word(HOSTILE, "good", strong=True), Link("a.csv", HOSTILE))),
    Items([HOSTILE, HOSTILE]),
    Items([Item(HOSTILE, [Items([HOSTILE])])], lined=True),
    Table([HOSTILE], [[HOSTILE], [Word(HOSTILE, "bad")]], caption=HOSTILE),
    FIGURE,
    Figures([FIGURE]),
    Table([HOSTILE, ""], [[HOSTILE, Typed(HOSTILE)], [HOSTILE, ""]], below=[[HOSTILE, ""]], number=HOSTILE),
    Figures([FIGURE], caption=HOSTILE),
    Command(HOSTILE),
    Fold(HOSTILE, [Paragraph(HOSTILE)]),
    Long([Paragraph(HOSTILE)]),
    Beside([Paragraph(HOSTILE)], [Paragraph(HOSTILE)]),
    Short([Paragraph(HOSTILE)]),
    Gap(),
)


def shown(*blocks: Block) -> str:
    return "\n".join(html.each(blocks))


def test_text_is_escaped_once_and_markup_never() -> None:
    escaped = "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#x27;&lt;img src=x onerror=alert(1)&gt;"
    assert html.escape(HOSTILE) == html.escape(html.escape(HOSTILE)) == html.show(HOSTILE) == escaped
    assert html.escape(Markup("<b>")) == "<b>" and html.escape(3) == "3"


@pytest.mark.fault("HTML, Markdown and CSV in the name of a model or backend", "shown as text, or refused as a name")
@pytest.mark.parametrize("block", EVERY, ids=lambda block: type(block).__name__)
def test_what_comes_from_outside_makes_no_elements(block: Block) -> None:
    """In content, in attributes, in tables and in the words of an image, by both printers."""
    page = shown(block)
    assert "<script" not in page and page.count("<img") == sum(1 for _ in figures([block]))
    assert isinstance(block, Short | Gap) or html.escape(HOSTILE) in page
    assert "<" not in markdown.page([block])


def test_blocks_become_what_they_are() -> None:
    assert shown(Heading("a"), Paragraph("b"), Paragraph("c", "note")) == '<h3>a</h3>\n<p>b</p>\n<p class="note">c</p>'
    assert shown(Paragraph((Strong("a"), " ", Code("b")))) == "<p><strong>a</strong> <code>b</code></p>"
    assert shown(Items(["a", Item("b", [Items(["c"])])])) == "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>"
    assert shown(Items(["a", "b"], lined=True)) == "<ul><li>a\n</li><li>b</li></ul>"
    assert shown(Fold("a", [Command("b")])) == (
        '<details><summary>a</summary><pre tabindex="0"><code>b</code></pre></details>'
    )
    text = markdown.page([Heading("a"), Paragraph((Strong("b"), Code("c"))), Items(["d", Item("e", [Items(["f"])])])])
    assert text == "### a\n\n**b**`c`\n\n- d\n- e\n  - f\n"
    assert markdown.printed([Heading("b"), Paragraph("c")], "a") == "# a\n\n## b\n\nc\n"
    assert markdown.page([Fold("a", [Paragraph("b")]), Gap(), Paragraph("c")]) == "b\n\n\nc\n"


def test_what_is_empty_is_nothing() -> None:
    empty: list[Block] = [Items(()), Figures(()), Fold("a", ())]
    assert shown(*empty).strip() == "" == markdown.page(empty)


def test_each_printer_has_its_own() -> None:
    both: list[Block] = [Long([Paragraph("page")]), Short([Paragraph("index")])]
    assert shown(*both) == "<p>page</p>" and markdown.page(both) == "index\n"


def test_a_table_says_what_is_in_it_and_sets_numbers_right() -> None:
    table = Table(["name", "value"], [["a" * 50, "1"]], numbers=["value"])
    page = shown(Heading("The heading"), table)
    assert 'role="region" tabindex="0" aria-label="The heading"' in page
    assert '<th class="number" scope="col">value</th>' in page and '<td class="number">1</td>' in page
    assert f'<td class="long">{"a" * 50}</td>' in page
    assert 'aria-label="its own"' in shown(Heading("The heading"), replace(table, caption="its own"))
    assert 'aria-label="table"' in shown(table)


def test_a_caption_says_what_all_lines_have_in_common() -> None:
    """Nothing is said of an empty column; what is missing in all lines stays, and so does a table of one line."""
    head = ["a", "b", "c", "d", "by"]
    body: list[list[Text]] = [[name, "x", "", "-", Typed("run")] for name in "12"]
    table = Table(head, body, caption="Two", below=[["3", "-", "", "-", ""]])
    text = markdown.page([table])
    assert text.startswith("Two. In every line: b x; by `run`.\n\n| a | d |\n")
    assert pipes(text)[2:] == [["1", "-"], ["2", "-"], ["3", "-"]]
    assert '<p class="caption">Two. In every line: b x; by <code>run</code>.</p>' in shown(table)
    assert pipes(markdown.page([Table(head, body[:1])]))[0] == ["a", "b", "d", "by"]
    assert len(pipes(markdown.page([Table(["a"], [["1"], ["1"]])]))[0]) == 1


def test_a_command_beside_a_line_is_folded_where_a_page_can_fold() -> None:
    table = Table(["a", "by"], [["1", Typed("x <y>")], ["2", Typed("z" * 99)]])
    page = shown(table)
    assert '<td><details class="typed"><summary>command</summary><code>x &lt;y&gt;</code></details></td>' in page
    assert 'class="long"' not in page and pipes(markdown.page([table]))[2] == ["1", "`x &lt;y&gt;`"]


def test_tables_and_figures_are_numbered_as_their_printer_reads_them() -> None:
    table = Table(["a"], [["1"]])
    inner: list[Block] = [Fold("f", [table])]
    blocks: list[Block] = [Short([table]), Long(inner), Figures(()), Beside([table], [FIGURE]), Figures([FIGURE] * 2)]
    sections = [Section("a", "A", blocks), Section("b", "B", [table])]
    page = "\n".join(shown(*section.blocks) for section in numbered(sections, Short, "R"))
    index = "\n".join(markdown.page(section.blocks) for section in numbered(sections, Long))
    assert re.findall(r"(?:Table|Figure) R?\d", page) == ["Table R1", "Table R2", "Figure R1", "Figure R2", "Table R3"]
    assert re.findall(r"(?:Table|Figure) R?\d", index) == ["Table 1", "Table 2", "Figure 1", "Figure 2", "Table 3"]


def test_a_pipe_ends_no_cell() -> None:
    assert pipes(markdown.page([Table(["a|b", ""], [[Code("c|d"), "e\nf"]])])) == [
        ["a\\|b", ""],
        ["---", "---"],
        ["`c\\|d`", "e f"],
    ]


def test_an_image_needs_words() -> None:
    page = shown(FIGURE)
    assert f'alt="{html.escape(HOSTILE)}"' in page and "data:image/png;base64,iVBORw==" in page
    assert markdown.image(replace(FIGURE, alt="a [b]")) == "![a (b)](a/b.png)"
    for alt in ("", "  "):
        with pytest.raises(ValueError, match="words"):
            Figure(b"", "a.png", alt)


@pytest.mark.parametrize(
    "target", ["javascript:alert(1)", "JavaScript:x", "//evil.org", "data:text/html,x", "http://x"]
)
def test_links_stay_beside_the_page_or_are_https(target: str) -> None:
    with pytest.raises(ValueError):
        Link(target, "x")


def test_links_to_files_and_sections_are_links() -> None:
    assert html.show(Link("a/rows.csv", "<")) == '<a href="a/rows.csv">&lt;</a>'
    assert markdown.inline(Link("#a", "b")) == "[b](#a)" and Link("https://arxiv.org", "c")


def test_a_page_has_its_sections_and_their_names() -> None:
    page = html.page("T", HOSTILE, [Section("a", "<A>", [Paragraph("x")])], [("a", "to a")], Paragraph("f"))
    assert '<section id="a">\n<h2>&lt;A&gt;</h2>\n<p>x</p>\n</section>' in page
    assert '<nav aria-label="Sections"><ul><li><a href="#a">to a</a></li></ul></nav>' in page
    assert "<script" not in page and page.endswith("<footer><p>f</p></footer>\n</body>\n</html>\n")
