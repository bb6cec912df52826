"""Nothing that git keeps tells of the machine it was written on: no home folders, no registry hosts, no addresses."""

import re

# Folders that only one machine has, and addresses; hosts that readers may be sent to are named below.
LOCAL_PATH = re.compile(r"(?<![\w.$}~])/(?:root|home|opt|work|mnt|media|Users)/[\w.]+")
URL = re.compile(r"\bhttps?://([\w.-]+)|\b[\w.+-]+@([\w-]+(?:\.[\w-]+)+)|\b(\d{1,3}(?:\.\d{1,3}){3})\b")
REGISTRY = re.compile(r"\b(?:files\.pythonhosted|pythonhosted|pypi)\.org\b|\bindex-url\b|\bfind-links\b", re.IGNORECASE)
HOSTS = {"www.apache.org", "arxiv.org", "doi.org", "github.com", "keepachangelog.com"}
TEXT = (
    ".cpp",
    ".h",
    ".cu",
    ".cuh",
    ".def",
    ".py",
    ".md",
    ".toml",
    ".txt",
    ".json",
    ".yaml",
    ".yml",
    "Makefile",
    "run",
    "LICENSE",
)


def breaches(tree: dict[str, bytes]) -> list[str]:
    found = []
    for path, content in tree.items():
        if not path.endswith(TEXT) or path == "tests/house/test_tracked.py":
            continue
        text = content.decode()
        found += [f"{path}: {match.group()}" for match in (*LOCAL_PATH.finditer(text), *REGISTRY.finditer(text))]
        for match in URL.finditer(text):
            if not any(match.groups()) or not any(host in HOSTS for host in match.groups() if host):
                found.append(f"{path}: {match.group()}")
    return found


def test_nothing_of_a_machine_is_tracked(tree):
    assert breaches(tree) == []


def test_text_is_utf8_and_ends_in_a_newline(tree):
    for path, content in tree.items():
        if path.endswith(TEXT) and content and "/golden/" not in path:
            assert content.endswith(b"\n"), path
            assert b"\r" not in content, path
            assert b"\t" not in content or path == "Makefile", path


def test_a_machine_is_recognized():
    for text in (
        b"see /root/notes",
        b'open("/home/someone/x")',
        b"https://example.com/x",
        b"someone@example.com",
        b"10.1.2.3",
        b"pip --index-url x",
    ):
        assert breaches({"docs/x.md": text}), text
    fine = b"/proc/cpuinfo and https://arxiv.org/abs/2210.17323 and a /opt in 1.2.3; csrc/work/x; ./opt/x"
    assert breaches({"docs/x.md": fine}) == []
