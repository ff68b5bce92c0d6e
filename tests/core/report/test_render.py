import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trillium.report import Curves, ReportData, Section, Series, Table, render_report

PAYLOADS = (
    "<script>document.title='owned'</script>",
    "</pre></span></style></title><script>alert(1)</script>",
    '"><img src="http://evil.example/x" onerror="alert(1)">',
    "' onmouseover='alert(1)",
    "<svg onload=alert(1)>]]><!--",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% for x in y %}",
    "&lt;script&gt; &amp;#60;",
    "$\\frac{1}{2$ _^",
    "</svg></figure><iframe src='file:///etc/passwd'>",
)
OUR_TAGS = set(
    re.findall(
        r"\w+",
        "html head meta link title style body header nav main footer section div p span h1 h2 h3 "
        "h4 a dl dt dd table thead tbody tr th td figure figcaption details summary pre "
        "svg g path circle text defs use clippath rect",
    )
)


class Page(HTMLParser):
    """What a browser would make elements of, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend((name, value or "") for name, value in attrs)

    def handle_data(self, data):
        self.text += data


def assert_harmless(html: str) -> Page:
    page = Page(html)
    assert set(page.tags) <= OUR_TAGS
    names = {name for name, _ in page.attributes}
    assert not [name for name in names if name.startswith("on")]
    assert not names & {"src", "srcset", "action", "formaction", "xlink:href", "data", "ping"}
    targets = {value for name, value in page.attributes if name == "href"}
    assert all(target.startswith("#") or target == "data:," for target in targets)
    assert "url(http" not in html
    return page


@pytest.mark.security
@pytest.mark.parametrize("payload", PAYLOADS)
def test_text_of_a_model_stays_text(payload, say):
    page = assert_harmless(render_report(say(payload)))
    assert page.tags.count("style") == 1
    assert page.tags.count("svg") == 3
    assert page.text.count(payload) >= 15


@pytest.mark.security
@pytest.mark.property
@given(st.text(min_size=1, max_size=40))
def test_any_text_stays_text(text):
    pair = Table("table", ("a", "b"), ((text, 1.0),))
    page = assert_harmless(render_report(ReportData(text, text, (), (Section(text, (pair,)),))))
    assert page.tags.count("table") == 1


def test_the_page_forbids_scripts_and_every_request(say):
    html = render_report(say("x"))
    assert "default-src 'none'; style-src 'unsafe-inline'" in html
    assert "<script" not in html
    assert "http://" not in html
    assert "https://" not in html


def test_the_same_report_gives_the_same_page(say):
    assert render_report(say("same")) == render_report(say("same"))


def test_headings_tables_and_samples_say_what_was_put_in(say):
    text = Page(render_report(say("word"))).text
    assert "0.400" in text
    assert "0.300 to 0.500" in text
    assert "✓ word" in text
    assert "✗ word" in text
    assert "word.word" in text


def test_values_that_cannot_be_drawn_are_counted():
    curves = Curves("loss", "step", "nats", (Series("loss", (1, 2, 3), (0.5, float("nan"), 0.1)),))
    text = Page(render_report(ReportData("t", "s", (), (Section("a", (curves,)),)))).text
    assert "1 values are not finite and are left out." in text


def test_plots_and_tables_without_values_say_so():
    blocks = (Curves("loss", "step", "nats", ()), Table("rows", ("a",), ()))
    text = Page(render_report(ReportData("t", "s", (), (Section("a", blocks),)))).text
    assert "No finite values were recorded." in text
    assert "Nothing to show." in text
