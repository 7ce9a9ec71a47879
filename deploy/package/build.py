#!/usr/bin/env python3
"""Makes the Debian package out of the release binary; scripts/package calls it.

The binary tells its version, completions and manual pages itself, dpkg-shlibdeps which libraries it needs, and
dpkg-deb puts all of it together.
"""

import argparse
import gzip
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Optional

PACKAGE = Path(__file__).resolve().parent
DEPLOY = PACKAGE.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or DEPLOY.parent / "target")

# What goes where. The configuration is the administrator's once it is installed: dpkg asks before it changes it.
FILES = {
    "heizer.service": "usr/lib/systemd/system/heizer.service",
    "sysctl.d/90-heizer.conf": "usr/lib/sysctl.d/90-heizer.conf",
    "README.md": "usr/share/doc/heizer/README.md",
    "CONFIGURATION.md": "usr/share/doc/heizer/CONFIGURATION.md",
    "METRICS.md": "usr/share/doc/heizer/METRICS.md",
    "prometheus/prometheus.yml": "usr/share/doc/heizer/prometheus/prometheus.yml",
    "prometheus/heizer.rules.yml": "usr/share/doc/heizer/prometheus/heizer.rules.yml",
    "package/copyright": "usr/share/doc/heizer/copyright",
}
CONFIGURATION = {
    "heizer.toml": "etc/heizer/heizer.toml",
    "limits.d/90-heizer.conf": "etc/security/limits.d/90-heizer.conf",
}
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/heizer",
    "zsh": "usr/share/zsh/vendor-completions/_heizer",
    "fish": "usr/share/fish/vendor_completions.d/heizer.fish",
}
MAINTAINER_SCRIPTS = ("postinst", "prerm", "postrm")


def main() -> None:
    arguments = argparse.ArgumentParser(prog="scripts/package", description=__doc__)
    arguments.add_argument("--binary", type=Path, default=TARGET / "release" / "heizer", help="the program to package")
    arguments.add_argument("--output", type=Path, default=TARGET / "debian", help="the folder for the package")
    arguments.add_argument("--version", help="another version than the program's own")
    options = arguments.parse_args()
    if not options.binary.exists():
        raise SystemExit(f"scripts/package: no program at {options.binary}: run cargo build --release")
    print(build(options.binary.resolve(), options.output, options.version))


def build(binary: Path, output: Path, version: Optional[str] = None) -> Path:
    """The package of `binary` in the folder `output`."""
    version = version or said_by(binary, "--version").split()[-1]
    architecture = said_by("dpkg", "--print-architecture").strip()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "root"
        lay_out(binary, root)
        describe(binary, root, version, architecture)
        output.mkdir(parents=True, exist_ok=True)
        package = output / f"heizer_{version}_{architecture}.deb"
        pack = ("dpkg-deb", "--root-owner-group", "-Zxz", "-z3", "--build", root, package)
        subprocess.run(pack, check=True, stdout=subprocess.DEVNULL)
    return package


def lay_out(binary: Path, root: Path) -> None:
    """Everything that is installed, where it is installed."""
    put(root / "usr/bin/heizer", binary.read_bytes(), 0o755)
    for source, target in {**FILES, **CONFIGURATION}.items():
        put(root / target, (DEPLOY / source).read_bytes())
    for shell, target in COMPLETIONS.items():
        put(root / target, said_by(binary, "completions", shell).encode())
    with tempfile.TemporaryDirectory() as pages:
        said_by(binary, "man", "--dir", pages)
        for page in sorted(Path(pages).iterdir()):
            compressed = gzip.compress(page.read_bytes(), mtime=0)
            put(root / "usr/share/man/man1" / f"{page.name}.gz", compressed)


def describe(binary: Path, root: Path, version: str, architecture: str) -> None:
    """What dpkg is told of it."""
    installed = sorted(path for path in root.rglob("*") if path.is_file())
    sums = (f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n" for path in installed)
    control = (PACKAGE / "control").read_text().format(
        version=version,
        architecture=architecture,
        installed_kib=sum(-(-path.stat().st_size // 1024) for path in installed),
        libraries=libraries(binary),
    )
    put(root / "DEBIAN/md5sums", "".join(sums).encode())
    put(root / "DEBIAN/control", control.encode())
    put(root / "DEBIAN/conffiles", "".join(f"/{target}\n" for target in CONFIGURATION.values()).encode())
    for script in MAINTAINER_SCRIPTS:
        put(root / "DEBIAN" / script, (PACKAGE / script).read_bytes(), 0o755)


def libraries(binary: Path) -> str:
    """The packages with the libraries that the program is linked to, and their least versions."""
    with tempfile.TemporaryDirectory() as folder:
        # dpkg-shlibdeps works for a source package that has been built: this is the least of one.
        debian, program = Path(folder) / "debian", "debian/heizer/usr/bin/heizer"
        put(debian / "control", b"Source: heizer\n\nPackage: heizer\nArchitecture: any\n")
        put(debian / "heizer/DEBIAN/control", b"")
        put(Path(folder) / program, binary.read_bytes(), 0o755)
        return said_by("dpkg-shlibdeps", "-O", program, cwd=folder).strip().removeprefix("shlibs:Depends=")


def said_by(*command, cwd: Optional[str] = None) -> str:
    done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True, cwd=cwd)
    return done.stdout


def put(path: Path, content: bytes, mode: int = 0o644) -> None:
    """A file with this content, in folders that everybody may enter, whatever the umask."""
    for folder in reversed(path.parents):
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o755)
    path.write_bytes(content)
    path.chmod(mode)


if __name__ == "__main__":
    main()
