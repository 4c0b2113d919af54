"""PDF and HTML: what is read of them, what is refused, and files that are made to fill time or memory."""

from __future__ import annotations

import sys

import pytest

from llsflow.agents.extraction import Extraction
from tests.agents.pdfs import encrypted, line, pdf
from tests.patience import PATIENCE_SECONDS

ROME = pdf([line(b"Rome is old.")])
A_TYPE = b"BT /F1 12 Tf " + b"(a) Tj " * 50_000 + b"ET"


def text(kind: str, content: bytes, most: int = 1_000_000, seconds: float = PATIENCE_SECONDS) -> str:
    return Extraction(most, seconds).text(kind, content)


@pytest.mark.parametrize("packed", [False, True])
def test_pages_are_parted_by_a_blank_line(packed: bool) -> None:
    pages = [line(b"Rome is old."), b"0 0 m 10 10 l S", line(b"Oslo is not.")]
    assert text("pdf", pdf(pages, packed=packed)) == "Rome is old.\n\nOslo is not."


@pytest.mark.parametrize("algorithm", ["AES-256", "RC4-128"])
def test_a_pdf_that_opens_without_a_password_is_read(algorithm: str) -> None:
    assert text("pdf", encrypted(ROME, "", algorithm)) == "Rome is old."


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (encrypted(ROME, "secret"), "the PDF is encrypted: send it without its password"),
        (pdf([b"0 0 m 10 10 l S"]), "the PDF has no text, as scans have none: send what OCR reads from it"),
        (ROME[: len(ROME) // 2], "the PDF cannot be read: .*; it may be broken: save it anew"),
        (b"Rome", "the PDF cannot be read: .*; it may be broken: save it anew"),
        (b"", "the PDF cannot be read: .*; it may be broken: save it anew"),
        (pdf([line(b"x")], times=3_001), "the PDF has 3,001 pages, allowed: 3,000; send those that matter"),
        (pdf([line(b"a" * 600)] * 2), "the PDF has more than 1,000 characters: send the pages that matter"),
        (pdf([b"\0" * 100_000_000], packed=True), "the PDF cannot be read: Limit reached while decompressing"),
    ],
    ids=["encrypted", "scanned", "torn", "text", "empty", "pages", "characters", "bomb"],
)
def test_what_cannot_be_read_is_refused_with_the_reason(content: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=f"^{told}"):
        text("pdf", content, most=1_000)


def test_the_documents_of_a_turn_share_its_time() -> None:
    extracting = Extraction(100_000_000, seconds=2)
    for content in (pdf([A_TYPE], packed=True, times=3_000), ROME):
        with pytest.raises(ValueError, match="the documents take longer than 2 s to read: send fewer"):
            extracting.text("pdf", content)
    # the next turn has its own
    assert text("pdf", ROME) == "Rome is old."


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS knows the limit and refuses it")
def test_what_needs_more_memory_than_it_may_have_is_refused() -> None:
    content = pdf([b"(" * 70_000_000], packed=True)
    with pytest.raises(ValueError, match="its reading was ended, as it takes too much memory: send a smaller part"):
        Extraction(1_000, PATIENCE_SECONDS, memory_bytes=200_000_000).text("pdf", content)


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("<p>Rome is <b>old</b>.<script>evil()</script>", "Rome is old."),
        ("<title>T</title><p>Hello <b>W</b>orld</p>", "T\nHello World"),
        ("<p>H<sub>2</sub>O, 1<sup>st</sup>, 10<sup>6</sup></p>", "H2O, 1st, 10^6"),
        ("<p><span>1</span><span>,000</span> EUR</p>", "1,000 EUR"),
        ("<table><tr><td>Name<td>Qty<tr><td><p>Nut</p><p>big</p><td>3</table>", "Name\tQty\nNut big\t3"),
        ("<p>one</p><p>two<br>three</p>", "one\n\ntwo\nthree"),
        ("<![what[", ""),
        ("<p>10<sup>2n</sup>, e<sup>0.5</sup>, 2<sup>n-1</sup>, 5<sup>th</sup></p>", "10^(2n), e^0.5, 2^(n-1), 5th"),
        ('<p>5000<sup><a href="#n">1</a></sup></p>', "5000 [1]"),
        ("<p><math><msup><mn>10</mn><mn>6</mn></msup></math></p>", "10^6"),
        ("<details><summary>Price</summary>12 EUR</details>", "Price\n12 EUR"),
        ("<table><tr><th></th><th>2023</th></tr><tr><td>Rev</td><td>5</td></tr></table>", "\t2023\nRev\t5"),
        ("<p>x</p><label>name</label><p>y</p>", "x\n\nname\n\ny"),
        ('<table><tr><td><span hidden>KEY</span>a</td><td style="display:none">b</td></tr></table>', "a"),
    ],
)
def test_html_reads_as_a_reader_sees_it(page: str, told: str) -> None:
    assert text("html", page.encode()) == told
