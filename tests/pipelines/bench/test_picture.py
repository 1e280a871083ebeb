import xml.etree.ElementTree as ET

from pipelines.bench.picture import HEIGHT, LEFT, WIDTH, Point, draw

SVG = "{http://www.w3.org/2000/svg}"


def test_a_line_for_each_engine_and_a_point_for_each_level() -> None:
    ours = [Point(1, 400, 120), Point(8, 700, 700), Point(32, 2000, 1600)]
    root = ET.fromstring(draw("a <model>", {"Strata": ours, "other & co": ours[:2]}))
    assert len(root.findall(f"{SVG}polyline")) == 2
    circles = root.findall(f"{SVG}circle")
    assert len(circles) == 5
    places = [(float(circle.attrib["cx"]), float(circle.attrib["cy"])) for circle in circles]
    assert all(LEFT <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in places)
    assert places[0][0] < places[1][0] < places[2][0], "slower is further to the right"
    assert places[0][1] > places[1][1] > places[2][1], "faster is further up"
    words = [text.text for text in root.iter(f"{SVG}text")]
    assert {"a <model>", "Strata", "other & co", "1", "8", "32"} <= set(words)


def test_no_answer_at_all_is_still_a_picture() -> None:
    root = ET.fromstring(draw("nothing", {"Strata": [Point(1, 0.0, 0.0)]}))
    assert root.findall(f"{SVG}circle") == []


def test_one_point_has_axes_around_it() -> None:
    root = ET.fromstring(draw("one", {"Strata": [Point(1, 100, 100)]}))
    (circle,) = root.findall(f"{SVG}circle")
    assert float(circle.attrib["cx"]) == LEFT
