"""The code digest follows definitions through imports, and nothing else."""

import pytest

from inverseflow.core.provenance import ROOT, code_digest, modules_of

FILES = {
    "pkg/__init__.py": '"""A package."""\n__version__ = "1"\n',
    "pkg/sub/__init__.py": "",
    "pkg/sub/deep.py": "LIMIT = 3\n\ndef f(x):\n    return x + LIMIT\n\ndef other():\n    return 7\n",
    "pkg/mid.py": "from .sub import deep\nfrom pkg.sub.deep import f as g\n\n"
    "def run(x):\n    return deep.f(x)\n\ndef run2(x):\n    return g(x)\n\n"
    "def unused():\n    return deep.other()\n",
    "pkg/lazy.py": "def late():\n    from pkg.sub.deep import other\n\n    return other()\n",
    "pkg/star.py": "from pkg.sub.deep import *\n\ndef h():\n    return f(1)\n",
    "pkg/never.py": "x = 1\n",
    "script.py": "import numpy\nfrom pkg.mid import run\n\nprint(run(1))\n",
}


def make(folder, **changes):
    for name, text in FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        for old, new in changes.get(name.rpartition("/")[2].removesuffix(".py"), []):
            assert old in text
            text = text.replace(old, new)
        file.write_text(text)
    return folder


def digest(folder, **changes):
    return code_digest(make(folder, **changes) / "script.py", folder)


def test_modules_that_are_reached(tmp_path):
    make(tmp_path)
    assert modules_of(tmp_path / "script.py", tmp_path) == ["pkg/mid.py", "pkg/sub/deep.py", "script.py"]


@pytest.mark.parametrize(
    "changes, counts",
    [
        ({"deep": [("return x + LIMIT", "return x - LIMIT")]}, True),
        ({"deep": [("LIMIT = 3", "LIMIT = 4")]}, True),
        ({"deep": [("return 7", "return 8")]}, False),
        ({"deep": [("LIMIT = 3", "# why\nLIMIT  =  3")]}, False),
        ({"deep": [("def f(x):\n", 'def f(x):\n    """Add."""\n')]}, False),
        ({"deep": [("LIMIT = 3", "LIMIT = 3\nprint(LIMIT)")]}, True),
        ({"deep": [("LIMIT = 3", "LIMIT = 3\nif __name__ == '__main__':\n    other()")]}, False),
        ({"mid": [("return deep.other()", "return 1")]}, False),
        ({"mid": [("return g(x)", "return -g(x)")]}, False),
        ({"never": [("x = 1", "x = 2")]}, False),
        ({"script": [("run(1)", "run(2)")]}, True),
    ],
)
def test_what_counts(tmp_path, changes, counts):
    assert (digest(tmp_path / "a") != digest(tmp_path / "b", **changes)) == counts


@pytest.mark.parametrize(
    "line",
    [
        "from pkg.mid import run2",
        "import pkg.sub.deep\npkg.sub.deep.f(1)",
        "import pkg.sub.deep as d\nd.f(1)",
        "from pkg.sub import deep\nuse(deep)",
        "from pkg.star import h",
        "from pkg.star import f",
        "if True:\n    from pkg.sub.deep import f\nf(1)",
    ],
)
def test_every_form_of_import_is_followed(tmp_path, line):
    name = line.rpartition(" ")[2]
    use = "" if "\n" in line else f"\n{name}(1)"
    script = [("from pkg.mid import run\n\nprint(run(1))", line + use)]
    change = [("return x + LIMIT", "return x - LIMIT")]
    assert digest(tmp_path / "a", script=script) != digest(tmp_path / "b", script=script, deep=change)


def test_import_inside_a_function_is_followed(tmp_path):
    script = [("from pkg.mid import run\n\nprint(run(1))", "from pkg.lazy import late\nlate()")]
    change = [("return 7", "return 8")]
    assert digest(tmp_path / "a", script=script) != digest(tmp_path / "b", script=script, deep=change)


def test_descriptions_of_settings_do_not_count(tmp_path):
    def with_setting(folder, text, value):
        (make(folder) / "script.py").write_text(f"x = setting({value}, {text!r}, 'keV', gt=0)\n")
        return code_digest(folder / "script.py", folder)

    same = with_setting(tmp_path / "a", "the energy", 1)
    assert same == with_setting(tmp_path / "b", "the energy of a line", 1)
    assert same != with_setting(tmp_path / "c", "the energy", 2)


def test_the_package_itself_can_be_followed():
    names = modules_of(ROOT / "inverseflow/core/job.py")
    assert {"inverseflow/core/compute.py", "inverseflow/core/progress.py"} <= set(names)
    assert not any("maxrf" in name for name in names)
