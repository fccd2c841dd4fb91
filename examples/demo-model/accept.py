"""Takes a new demo model into the tree: `make demo-accept FOLDER=build/demo`.

    accept.py BUILD [FOLDER [TYPE]]

FOLDER, of train.py, becomes ksllm-demo.gguf, of TYPE (q4_k_m). Then all that depends on the
file's bits is written anew: tests/demo.txt (if the generator has changed),
tests/demo_golden.h, and what the robot says in README.md, there and here, between
"```console" and "```", to the lines that begin with "> ". Without FOLDER only
that.
"""
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
MODEL = HERE / "ksllm-demo.gguf"
READMES = HERE.parent.parent / "README.md", HERE / "README.md"
TESTS = HERE.parent.parent / "tests"


def robot(build, lines):
    return subprocess.run([f"{build}/examples/robot"], input="".join(
        line + "\n" for line in lines), stdout=subprocess.PIPE, text=True,
        check=True).stdout


def again(build):
    """A block of README.md with what is said now."""
    return lambda m: m[1] + robot(build, re.findall(r"^> (.*)$", m[2], re.M)) + m[3]


def main():
    build, folder, kind, *_ = sys.argv[1:] + ["", ""]
    if folder:
        subprocess.run([f"{build}/quant/ksllm-quant", "convert", folder, "-o",
                        MODEL, "-t", kind or "q4_k_m"], check=True)
    size = MODEL.stat().st_size
    print(f"{MODEL.name}: {size / 1e6:.2f} MB")
    if size > 4e6:
        return "more than 4 MB"
    for path, command in (
            (TESTS / "demo.txt", [sys.executable, HERE / "evaluate.py", "--sample", "200"]),
            (TESTS / "demo_golden.h", [f"{build}/tests/test_demo", "print"])):
        out = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if out.returncode:      # never half of it
            print(out.stdout)
            return f"{command[0]} failed"
        path.write_text(out.stdout)
    print(out.stdout.split("\n", 1)[1].strip())
    for readme in READMES:
        readme.write_text(re.sub(r"(^```console\n\$[^\n]*\n)(.*?)(^```$)", again(build),
                                 readme.read_text(), flags=re.M | re.S))
    print("written: tests/demo.txt, tests/demo_golden.h, README.md; `make test`")


if __name__ == "__main__":
    sys.exit(main())
