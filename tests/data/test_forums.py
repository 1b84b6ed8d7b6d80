import pytest
from upstream import SHP, STACK_EXCHANGE, answer, parse, row_of

from rlhf_lib.data.load.forums import html_text


@pytest.mark.parametrize(
    ("fields", "reasons"),
    [
        ({"labels": 1}, ["label_contradicts_score"]),
        ({"labels": 0, "score_A": 60}, ["label_contradicts_score"]),
        ({"labels": 2}, ["malformed"]),
        ({"labels": None}, ["malformed"]),
        ({"domain": None}, ["malformed"]),
        ({"human_ref_A": None}, ["malformed"]),
        ({"history": None}, ["malformed"]),
        ({"history": " "}, ["empty_prompt"]),
        ({"human_ref_A": " ", "human_ref_B": ""}, ["response_empty", "response_empty", "no_usable_response"]),
        ({"score_A": None, "score_B": "many"}, ["response_no_score", "response_no_score", "no_usable_response"]),
    ],
)
def test_faulty_shp_records(fields, reasons):
    assert parse("shp", {**SHP, **fields}) == (reasons, [])


def test_shp_from_csv_has_numbers_as_texts():
    texts = {key: str(value) for key, value in SHP.items()}
    assert row_of("shp", texts) == row_of("shp", SHP)


def test_shp_labels_that_agree_with_the_scores():
    assert (
        row_of("shp", {**SHP, "labels": 1, "score_A": 60, "domain": "legaladvice_validation"})[0] == "shp/legaladvice"
    )
    assert row_of("shp", {**SHP, "score_A": 54})[2] == [("Habit.", 54.0), ("Taste.", 54.0)]


@pytest.mark.parametrize("metadata", [None, [], ["no address", 3], "https://math.stackexchange.com"])
def test_stack_exchange_without_a_site(metadata):
    assert row_of("stack_exchange", {**STACK_EXCHANGE, "metadata": metadata})[0] == "stack_exchange"


@pytest.mark.parametrize(
    ("fields", "reasons"),
    [
        ({"question": None}, ["malformed"]),
        ({"question": "<![odd[]]>"}, ["malformed"]),
        ({"answers": None}, ["malformed"]),
        ({"answers": []}, ["no_usable_response"]),
        ({"question": "<p> </p>"}, ["empty_prompt"]),
        ({"answers": ["text", answer(None)]}, ["response_malformed", "response_malformed", "no_usable_response"]),
        ({"answers": [answer(pm_score=None)]}, ["response_no_score", "no_usable_response"]),
        ({"answers": [answer('<img src="x.png">')]}, ["response_empty", "no_usable_response"]),
    ],
)
def test_faulty_stack_exchange_records(fields, reasons):
    assert parse("stack_exchange", {**STACK_EXCHANGE, **fields}) == (reasons, [])


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("plain", "plain"),
        ("<p>One\nline.</p>\n\n<p>Two &amp; <b>three</b>.</p>\n", "One line.\n\nTwo & three."),
        ("<p>A<br>B<br/>\n C</p>", "A\nB\nC"),
        ('<p>See <a href="https://x.org" rel="nofollow">the page</a>.</p>', "See the page."),
        ("<p>Use <code>a&lt;b\n c</code> now</p>", "Use `a<b c` now"),
        ("<p><code>a`b</code></p>", "``a`b``"),
        ("<p>x</p><pre><code>if a:\n\n    b &lt; c\n</code></pre><p>y</p>", "x\n\n```\nif a:\n\n    b < c\n```\n\ny"),
        ('<pre class="lang-py"><code><span>a</span>  b</code></pre>', "```\na  b\n```"),
        ("<pre>\nraw ``` text\n</pre>", "````\nraw ``` text\n````"),
        ("<p>x:</p>\n<ul>\n<li>one</li>\n<li><p>two</p></li>\n</ul>\n<p>y</p>", "x:\n- one\n- two\n\ny"),
        ("<ol><li>one</li><li>two<ul><li>in</li></ul></li><li>three</li></ol>", "1. one\n2. two\n  - in\n3. three"),
        ("<ul><li></li></ul><p>x</p>", "x"),
        ("<li>lost</li>", "- lost"),
        ("<blockquote>\n<p>said</p>\n</blockquote>\n<p>x</p>", "> said\n\nx"),
        ("<h2>Title</h2>text<hr>more", "Title\n\ntext\n\nmore"),
        ("<p>10<sup>6</sup></p>", "10^6"),
        ("<!-- language: lang-js --><p>x</p>", "x"),
        ("<p>a < b and <unknown>c</unknown></p>", "a < b and c"),
        ("<p>never <b>closed", "never closed"),
        ("<p>never <code>closed</p><p>x", "never `closed`\n\nx"),
        ("<pre><code>never closed", "```\nnever closed\n```"),
        ("</ul></blockquote></code></pre>x", "x"),
        ("", ""),
    ],
)
def test_html_text(html, text):
    assert html_text(html) == text
