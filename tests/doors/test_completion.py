"""`tersor --print-completion`: a shell that reads the script completes commands, options and files."""

import os
import shutil
import subprocess
import sys

import pytest

COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
function_name=$(complete -p tersor | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function_name tersor "${@: -1}" ""
printf '%s\\n' "${COMPREPLY[@]}"
"""


def printed(shell, code=0, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "tersor", "--print-completion", shell],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    pytest.importorskip("shtab", reason="shtab is not here")
    path = tmp_path_factory.mktemp("completion") / "tersor.bash"
    path.write_text(printed("bash").stdout)
    return path


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("tersor", "comp"), {"compress"}),
        (("tersor", ""), {"compress", "decompress", "info", "verify", "eval", "run", "bench"}),
        (("tersor", "compress", "--thr"), {"--threads"}),
        (("tersor", "bench", ""), {"entropy", "lossless"}),
        (("tersor", "verify", "mod"), {"model.tsr"}),
        (("tersor", "compress", "-o", "mod"), {"model.tsr"}),
    ],
)
def test_bash_completes(script, tmp_path, words, found):
    if not shutil.which("bash"):
        pytest.skip("no bash")
    (tmp_path / "model.tsr").touch()
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", str(script), *words], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found <= set(done.stdout.split()), done.stdout


def test_zsh_reads_its_script():
    pytest.importorskip("shtab", reason="shtab is not here")
    text = printed("zsh").stdout
    assert text.startswith("#compdef tersor")
    if not shutil.which("zsh"):
        pytest.skip("no zsh to read it")
    subprocess.run(["zsh", "-n"], input=text, text=True, check=True)


def test_a_missing_shtab_is_said(tmp_path):
    (tmp_path / "shtab.py").write_text("raise ImportError('not here')")
    done = printed("bash", code=1, PYTHONPATH=str(tmp_path))
    assert "pip install 'tersor[completion]'" in done.stderr
    assert done.stdout == ""


def test_an_unknown_shell_is_usage():
    assert "tcsh" in printed("tcsh", code=2).stderr
