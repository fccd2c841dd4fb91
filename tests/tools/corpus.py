#!/usr/bin/env python3
"""corpus.py - Korean text of free licences, out of Debian packages.

    python3 tests/tools/corpus.py build/corpus

Fetches the packages below with `apt-get download` (nothing is installed, no
root is needed), takes the Korean out of them and writes build/corpus/korean.txt:
plain UTF-8, one paragraph or message a line, each line once. Prints what each
package gave. Debian revises its packages, so the text is about the same from
one year to the next, not to the byte; numbers that depend on it say its size.
"""
import glob
import html
import io
import os
import re
import struct
import subprocess
import sys
import tarfile
import zipfile

# Package, licence, and which files of it are Korean.
PACKAGES = (
    ("libreoffice-help-ko", "MPL-2.0", r"help/ko/.*\.html$"),
    ("libreoffice-l10n-ko", "MPL-2.0", r"/ko/.*\.mo$"),
    ("gnome-user-docs", "CC-BY-SA-3.0", r"/help/ko/.*\.page$"),
    ("krita-l10n", "GPL-3", r"locale/ko/.*\.mo$"),
    ("evolution-common", "LGPL-3", r"locale/ko/.*\.mo$"),
    ("debian-faq-ko", "GPL-2", r"FAQ/ko/.*\.html$"),
    ("iso-codes", "LGPL-2.1", r"locale/ko/.*\.mo$"),
    ("firefox-esr-l10n-ko", "MPL-2.0", r"\.xpi$"),
    ("thunderbird-l10n-ko", "MPL-2.0", r"\.xpi$"),
    ("vlc-l10n", "GPL-2", r"locale/ko/.*\.mo$"),
    ("wordpress-l10n", "GPL-2", r"-?ko_KR\.mo$"),
    ("phpmyadmin", "GPL-2", r"locale/ko/.*\.mo$"),
    ("gnucash-common", "GPL-2", r"locale/ko/.*\.mo$"),
    # Words with their Hanja, a line each.
    ("libhangul-data", "BSD-3-Clause", r"/hanja\.txt$"),
)


def members(deb):
    """(name, bytes) of every file in a package."""
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], check=True,
                          stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for m in tar:
            if m.isfile():
                yield m.name, tar.extractfile(m).read()


def messages(data):
    """The translations in a .mo file of gettext."""
    order = "<" if data[:4] == b"\xde\x12\x04\x95" else ">"
    n, _, at = struct.unpack_from(order + "3I", data, 8)
    for i in range(n):
        size, start = struct.unpack_from(order + "2I", data, at + 8 * i)
        text = data[start:start + size].decode("utf-8", "ignore")
        yield text.replace("\0", "\n")


def markup(data):
    """The text between tags, a line for each block."""
    text = data.decode("utf-8", "ignore")
    text = re.sub(r"(?s)<!--.*?-->|<(script|style|head)\b.*?</\1>", "", text)
    text = re.sub(r"</?(p|div|h\d|li|td|tr|br|title|item|note)\b[^>]*>", "\n",
                  text)
    yield html.unescape(re.sub(r"<[^>]*>", "", text))


def language_pack(data):
    """Mozilla's .xpi: `key = text` in .ftl and .properties."""
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        for name in z.namelist():
            if name.endswith((".ftl", ".properties")):
                text = z.read(name).decode("utf-8", "ignore")
                yield re.sub(r"(?m)^ *\.?[\w.-]+ *= *|^#.*$", "", text)


def plain(data):
    yield data.decode("utf-8", "ignore")


def paragraphs(name, data):
    kind = os.path.splitext(name)[1]
    read = {".mo": messages, ".xpi": language_pack, ".txt": plain}
    read = read.get(kind, markup)
    for text in read(data):
        for line in text.split("\n"):
            line = re.sub(r"[ \t]+", " ", line).strip()
            if re.search("[가-힣]", line):
                yield line


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = os.path.abspath(sys.argv[1])
    os.makedirs(folder, exist_ok=True)
    seen, out = set(), []
    for package, licence, wanted in PACKAGES:
        found = glob.glob(os.path.join(folder, package + "_*.deb"))
        if not found:
            subprocess.run(["apt-get", "download", "-qq", package],
                           cwd=folder, check=True, stderr=subprocess.DEVNULL)
            found = glob.glob(os.path.join(folder, package + "_*.deb"))
        before = sum(map(len, out))
        for name, data in members(found[0]):
            if re.search(wanted, name):
                for line in paragraphs(name, data):
                    if line not in seen:
                        seen.add(line)
                        out.append(line.encode("utf-8"))
        print("%-22s %-13s %8d bytes" % (package, licence,
                                         sum(map(len, out)) - before))
    text = b"\n".join(out) + b"\n"
    with open(os.path.join(folder, "korean.txt"), "wb") as f:
        f.write(text)
    print("%-36s %8d bytes, %d lines" % ("all", len(text), len(out)))


if __name__ == "__main__":
    main()
