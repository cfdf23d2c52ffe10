"""The map of the package, which is its docstring, shows what is there, in the order that import-linter enforces."""

import configparser
import re

import pytest
from conftest import REPOSITORY

import lightning_bc

PACKAGE = REPOSITORY / "lightning_bc"
LINES = (lightning_bc.__doc__ or "").splitlines()
ENTRY = re.compile(r"^(?P<indent> +)(?P<name>[\w.]+/|\w+\.py)  +\S")


def mapped():
    """The paths in the map, in its order: ``cli.py``, ``strategies/``, ``strategies/base.py``."""
    room, paths = "", []
    for entry in filter(None, map(ENTRY.match, LINES)):
        inside = len(entry["indent"]) > 4
        paths.append((room if inside else "") + entry["name"])
        if not inside:
            room = entry["name"]
    return paths


def contents(folder):
    """Files and folders with code in ``folder``, as they are called in the map."""
    packages = {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
    return packages | {path.name for path in folder.glob("*.py")}


def stages():
    """Each stage's names, from left to right, as the arrows of the map have them."""
    first = next(number for number, line in enumerate(LINES) if " -> " in line)
    last = LINES.index("", first)
    return [set(re.findall(r"\w+", stage)) for stage in " ".join(LINES[first:last]).split("->")]


def layers(within=""):
    """The names of setup.cfg's layers, from the lowest to the highest, without repetition; of the package or of a room."""
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    found = []
    for line in reversed(config["importlinter:contract:stages"]["layers"].split("\n")):
        modules = [name.strip().split(".")[1:] for name in line.split("|")]
        if within:
            names = {module[1] for module in modules if module[:1] == [within] and len(module) > 1}
        else:
            names = {module[0] for module in modules if module}
        if names and names not in found:
            found.append(names)
    return found


def test_every_file_and_folder_of_the_top_level_is_in_the_map_once_and_nothing_else_is():
    top_level = [path for path in mapped() if "/" not in path.rstrip("/")]
    assert sorted(top_level) == sorted(contents(PACKAGE))


def test_a_room_whose_contents_are_listed_has_all_of_them_in_the_map():
    inside = [path for path in mapped() if "/" in path.rstrip("/")]
    assert inside                                                   # else this test says nothing
    for room in {path.partition("/")[0] for path in inside}:
        listed = sorted(path.partition("/")[2] for path in inside if path.startswith(f"{room}/"))
        assert listed == sorted(contents(PACKAGE / room) - {"__init__.py"}), room


def test_the_stages_of_the_map_are_the_layers_of_the_linter():
    assert stages() == layers()


def test_every_file_of_the_map_has_a_stage():
    modules = {name.removesuffix(".py") for name in contents(PACKAGE)} - {"__init__", "__main__"}
    assert {name.rstrip("/") for name in modules} == set().union(*stages())


@pytest.mark.parametrize("within", ["", "strategies"])
def test_the_map_lists_what_is_left_before_what_is_right(within):
    position = {name: number for number, names in enumerate(layers(within)) for name in names}
    prefix = f"{within}/" if within else ""
    names = [path.removeprefix(prefix).rstrip("/").removesuffix(".py") for path in mapped() if path.startswith(prefix)]
    listed = [position[name] for name in names if name in position]
    assert len(listed) == len(position)
    assert listed == sorted(listed)


def test_a_wheel_holds_every_package_and_what_is_shipped():
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    packages = {".".join(path.parent.relative_to(REPOSITORY).parts) for path in PACKAGE.rglob("__init__.py")}
    assert set(config["options"]["packages"].split()) == packages | {"lightning_bc.shipped"}
    patterns = config["options.package_data"]["lightning_bc.shipped"].split()
    held = {path for pattern in patterns for path in REPOSITORY.glob(pattern)}
    assert held >= {path for folder in ("configs", "checkpoints/experts") for path in (REPOSITORY / folder).rglob("*.*")}
