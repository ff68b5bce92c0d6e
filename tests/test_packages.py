"""Every module of every package imports, and a built wheel carries all that the source tree has."""

import builtins
import dis
import importlib
import os
import pkgutil
import subprocess
import sys
import types
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "trillium": ROOT / "core",
    "trillium_sandbox": ROOT / "sandboxes",
    "trillium_code": ROOT / "apps",
    "trillium_math": ROOT / "apps",
    "trillium_rec": ROOT / "apps",
}


def modules() -> list[str]:
    """Return the dotted name of every Python file of the packages."""
    return sorted(
        ".".join(path.relative_to(parent).with_suffix("").parts).removesuffix(".__init__")
        for package, parent in PACKAGES.items()
        for path in (parent / package).rglob("*.py")
        if path.name != "__main__.py"
    )


@pytest.mark.parametrize("name", modules())
def test_every_module_imports(name: str) -> None:
    assert importlib.import_module(name).__doc__, "a module says what lives in it"


@pytest.mark.parametrize("name", modules())
def test_every_name_that_a_module_reads_exists(name: str) -> None:
    """Shapes in annotations look like names, so that linter and type checker cannot tell."""
    module = importlib.import_module(name)
    assert module.__file__ is not None
    code = compile(Path(module.__file__).read_text(), module.__file__, "exec")
    assert not [n for n in global_names(code) if not hasattr(module, n) and n not in dir(builtins)]


def global_names(code: types.CodeType) -> Iterator[str]:
    """Yield the global names that the functions of a code object read, at any depth."""
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            reads = (
                one.argval for one in dis.get_instructions(inner) if one.opname == "LOAD_GLOBAL"
            )
            yield from reads
            yield from global_names(inner)


def test_every_folder_with_modules_is_a_package() -> None:
    for package, parent in PACKAGES.items():
        walked = pkgutil.walk_packages([str(parent / package)], f"{package}.")
        found = {package, *(module.name for module in walked)}
        assert {name for name in modules() if name.split(".")[0] == package} <= found


@pytest.mark.slow
def test_a_wheel_works_without_the_source_tree(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    wheel = next(tmp_path.glob("trillium-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        shipped = set(archive.namelist())
    for package, parent in PACKAGES.items():
        for path in (parent / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert path.relative_to(parent).as_posix() in shipped
    python = _install(wheel, tmp_path / "environment")
    script = (
        "import trillium, trillium_code\n"
        "from trillium.config import list_presets\n"
        "print(trillium.__file__)\n"
        "print(sorted(list_presets('trillium_code')))\n"
    )
    where, presets = _run(python, "-c", script).splitlines()
    assert str(tmp_path) in where
    assert presets == str(sorted(p.stem for p in ROOT.glob("apps/trillium_code/presets/*.yaml")))
    shown = _run(python.with_name("trillium"), "--help")
    assert "doctor" in shown
    assert " code " in shown


def _install(wheel: Path, folder: Path) -> Path:
    """Install the wheel into a new environment that borrows the other packages of this one."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    _run(
        Path(sys.executable),
        *("-m", "pip", f"--python={python}", "install", "--quiet", "--no-deps", "--no-index"),
        str(wheel),
    )
    site = next(folder.glob("lib/python*/site-packages"))
    borrowed = Path(pytest.__file__).parent.parent
    # After the new environment's own folder, so that the installed wheel wins.
    (site / "borrowed.pth").write_text(f"{borrowed}\n")
    return python


def _run(program: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    reply = subprocess.run(
        [str(program), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=environment,
    )
    assert reply.returncode == 0, reply.stderr
    return reply.stdout
