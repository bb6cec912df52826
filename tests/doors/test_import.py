"""`import tersor` costs little and brings nothing heavy."""

import json
import subprocess
import sys

import pytest

import tersor

PROBE = """
import json, resource, sys
def spent():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
start = spent()
import tersor
print(json.dumps([spent() - start, sorted(sys.modules)]))
"""


def measured():
    output = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True).stdout
    return json.loads(output)


def test_import_costs_under_50_ms_of_cpu():
    assert min(measured()[0] for _ in range(5)) < 0.050


def test_import_brings_nothing_heavy():
    roots = {name.split(".")[0] for name in measured()[1]}
    assert not roots & {"numpy", "ml_dtypes", "torch", "rich", "safetensors", "argparse"}


def test_the_command_line_brings_nothing_heavy():
    code = "import sys, tersor.cli; tersor.cli.parser(); print({'numpy', 'torch', 'rich'} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "set()"


def test_public_names():
    assert len(tersor.__all__) <= 20
    for name in tersor.__all__:
        assert getattr(tersor, name) is not None
        assert name in dir(tersor)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = tersor.no_such_name


def test_doors_open_without_an_import_statement():
    code = "import tersor; print(tersor.entropy.encode.__module__, tersor.numpy.save_file is tersor.save_file)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["tersor.entropy.rans8", "True"]


def test_show_config(capsys):
    config = tersor.show_config("dicts")
    assert config["tersor"] == tersor.__version__
    assert config["isa"]["active"] in ("scalar", "avx2", "avx512", "avx512vbmi", "avx512bf16")
    assert config["threads"]["active"] == tersor.get_num_threads()
    assert isinstance(config["cuda"]["built"], bool)
    assert tersor.show_config() is None
    shown = capsys.readouterr().out
    for fact in ("isa", "threads", "cuda", "torch"):
        assert fact in shown


def test_the_isa_level_can_be_lowered_never_raised():
    code = "import tersor; print(*tersor.show_config('dicts')['isa'].values())"
    for level in ("scalar", "avx2"):
        output = subprocess.run(
            [sys.executable, "-c", code], env={"TERSOR_ISA": level}, capture_output=True, text=True, check=True
        ).stdout
        assert output.split()[0] in ("scalar", level)


def test_numbers_of_threads_are_checked():
    before = tersor.get_num_threads()
    for n in (0, -1, 1025):
        with pytest.raises(ValueError, match=str(n)):
            tersor.set_num_threads(n)
    assert tersor.get_num_threads() == before
