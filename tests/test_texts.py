"""Text files: whatever lies there is read or refused in one line; JSON knows whether it is what was written."""

import json

import pytest

from lightning_bc.errors import InputError
from lightning_bc.texts import (
    checked_json_of,
    checked_yaml_of,
    csv_text,
    json_of,
    parse_csv,
    write_json,
    write_yaml,
    yaml_of,
)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,                                              # at which libyaml's parser ends the process
        "- " * 200_000 + "a",
        "? " * 200_000 + "a",
        "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)),
        "a: &a {b: *a}",
        "!!timestamp 2026-99-99",
        "!!python/object/apply:os.system [id]",
        "a: b: c",
        "a:\n  b: 1\n  c: 2\n  b: 3",
        "\0",
    ],
    ids=lambda text: text[:12],
)
def test_yaml_of_any_kind_is_refused_in_one_line(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=r"a\.yaml: cannot be read as YAML") as refusal:
        yaml_of(tmp_path / "a.yaml")
    assert "\n" not in str(refusal.value)


def test_yaml_with_names_and_many_lists_is_read(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &a {x: [1]}\nb: [*a, *a]\nd: {<<: *a, x: 2}\nc:\n" + "- [[1], {d: 2}]\n" * 200)
    content = yaml_of(tmp_path / "a.yaml")
    assert content["b"] == [{"x": [1]}, {"x": [1]}]
    assert content["d"] == {"x": 2}
    assert len(content["c"]) == 200


def test_keys_that_are_merged_and_keys_of_two_types_are_no_key_twice(tmp_path):
    (tmp_path / "a.yaml").write_text("x: &x {a: 2}\ny:\n  b: &b {<<: *x, a: 1}\nd: {<<: *b, <<: {c: 3}}\ne: {1: x, '1': y}")
    content = yaml_of(tmp_path / "a.yaml")
    assert (content["y"]["b"], content["d"]) == ({"a": 1}, {"a": 1, "c": 3})
    assert content["e"] == {1: "x", "1": "y"}


@pytest.mark.parametrize("text", ["", "{", '{"a":' * 200_000, "\0"], ids=lambda text: text[:4])
def test_json_of_any_kind_is_refused_in_one_line(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json: cannot be read as JSON"):
        json_of(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"b\.json: cannot be read as JSON \(No such file"):
        json_of(tmp_path / "b.json")


def test_another_digit_in_what_was_written_is_noticed(tmp_path):
    content = {"score": 7221.5, "returns": [0.1, -3.0], "diverged": None}
    write_json(tmp_path / "a.json", content)
    assert checked_json_of(tmp_path / "a.json") == content
    (tmp_path / "b.json").write_text(json.dumps(content))           # of another program
    assert checked_json_of(tmp_path / "b.json") == content
    changed = (tmp_path / "a.json").read_text().replace("7221.5", "7221.7")
    (tmp_path / "a.json").write_text(changed)
    with pytest.raises(InputError, match=r"a\.json: is not what was written, by its checksum"):
        checked_json_of(tmp_path / "a.json")


def test_a_checksum_that_is_none_is_none_of_what_was_written(tmp_path):
    (tmp_path / "a.json").write_text('{"score": 1.0, "checksum": null}')
    with pytest.raises(InputError, match=r"a\.json: is not what was written"):
        checked_json_of(tmp_path / "a.json")


def test_a_number_that_json_cannot_hold_is_refused_and_what_was_there_stays(tmp_path):
    write_json(tmp_path / "a.json", {"score": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"score": float("nan")})
    assert checked_json_of(tmp_path / "a.json") == {"score": 1.0}


def flips(whole):
    """The bytes with each of their bits turned over in turn."""
    for place in range(len(whole)):
        for bit in range(8):
            made = bytearray(whole)
            made[place] ^= 1 << bit
            yield bytes(made)


def test_a_flipped_bit_in_yaml_that_we_wrote_is_named_or_changes_nothing(tmp_path):
    path, content = tmp_path / "a.yaml", {"seed": 0, "data": {"path": "a.pt", "pairs": 24}, "model": None}
    write_yaml(path, content)
    assert checked_yaml_of(path) == yaml_of(path) == content
    whole, named = path.read_bytes(), 0
    for made in flips(whole):
        path.write_bytes(made)
        try:
            assert checked_yaml_of(path) == content
        except InputError:
            named += 1
    assert named > 8 * (len(whole) - 10)
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        try:
            assert checked_yaml_of(path) is None                    # a comment, and no configuration
        except InputError:
            assert size >= len("# sha256")


NAMES, ROWS = ["run", "flags", "score"], [["a", "--x [1,2]", "0.5"], ["b", 'says "so"\nand so', "9e3"], ["c", "", ""]]


def test_csv_that_we_wrote_is_read_again():
    assert parse_csv(csv_text(NAMES, ROWS)) == (NAMES, ROWS)
    assert parse_csv("a,b\n1,2\n") == (["a", "b"], [["1", "2"]])
    assert parse_csv(csv_text(NAMES, [])) == (NAMES, [])
    assert parse_csv("") == ([], [])


def test_a_flipped_bit_in_csv_that_we_wrote_is_named_or_changes_nothing_but_a_last_line_that_is_cut_off():
    whole, named = csv_text(NAMES, ROWS).encode(), 0
    for made in flips(whole):
        try:
            names, rows = parse_csv(made.decode("latin-1"))
        except ValueError:
            named += 1
            continue
        if names[: len(NAMES)] == NAMES and len(names) > len(NAMES):  # the checksums' own name: they are seen
            assert [row[:-1] for row in rows] == ROWS
        else:
            assert (names, rows) in [(NAMES, ROWS), (NAMES, ROWS[:-1])]
    assert named > 8 * (len(whole) - 8)
