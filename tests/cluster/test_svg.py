import xml.etree.ElementTree as ET

from cluster.svg import page, text


def test_a_page_is_a_document_whose_words_are_words() -> None:
    root = ET.fromstring(page(200, 100, "<title> & more", text(5, 6, "a < b", anchor="end", size=9)))
    assert root.attrib["viewBox"] == "0 0 200 100"
    title, words = root.findall("{http://www.w3.org/2000/svg}text")
    assert (title.text, words.text) == ("<title> & more", "a < b")
    assert (words.attrib["x"], words.attrib["text-anchor"], words.attrib["font-size"]) == ("5.0", "end", "9")
