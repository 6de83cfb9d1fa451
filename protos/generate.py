"""Generates ems_worker/pb from protos/: `make protos`.

protoc writes imports relative to the root of the protos (`from fes.orchestrator.v1 import ...`). Our modules are under
`ems_worker.pb`, so the imports are rewritten; the names in the descriptor pool stay those of the platform. With --check
nothing is written, and the exit code is 1 if the committed code is out of date.
"""

import filecmp
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROTOS = Path(__file__).parent
TARGET = PROTOS.parent / "ems_worker" / "pb"
HEADER = '"""Generated from protos/ by `make protos`; not edited by hand."""\n'


def generate(target: Path) -> None:
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    services = [source for source in sources if "service " in (PROTOS / source).read_text()]
    # The plugins are installed beside this Python, which may not be on PATH.
    scripts = Path(sys.executable).parent
    plugins = [f"--plugin={name}={scripts / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", *plugins]
    subprocess.run([*protoc, f"--python_out={target}", f"--mypy_out=quiet:{target}", *sources], check=True)
    subprocess.run([*protoc, f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}", *services], check=True)
    for path in [*target.rglob("*.py"), *target.rglob("*.pyi")]:
        text = re.sub(r"^(from|import) fes\b", r"\1 ems_worker.pb.fes", path.read_text(), flags=re.M)
        path.write_text(re.sub(r"(?<![\w.\"])fes\.(?=[\w.]+_pb2\b)", "ems_worker.pb.fes.", text))
    for folder in [target, *(path for path in target.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").write_text(HEADER)


def files(root: Path) -> set[Path]:
    return {path.relative_to(root) for suffix in ("py", "pyi") for path in root.rglob(f"*.{suffix}")}


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        generate(fresh)
        if "--check" not in sys.argv:
            shutil.rmtree(TARGET, ignore_errors=True)
            shutil.copytree(fresh, TARGET)
            return 0
        new, old = files(fresh), files(TARGET)
        changed = {path for path in new & old if not filecmp.cmp(fresh / path, TARGET / path, shallow=False)}
        stale = changed | (new ^ old)
        for path in sorted(stale):
            print(f"ems_worker/pb/{path} is out of date: run `make protos`", file=sys.stderr)
        return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
