"""``autodeco-edge convert``, ``merge`` and ``verify``: checkpoints and GGUF files.

Owns the option names, their help and the result lines. The work is in
autodeco_edge.convert, imported inside each command so that ``--help`` stays quick.
Results go to stdout, remarks to stderr; errors are raised for ``main()`` to print.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..io.printing import put, say
from ..io.reading import user_path

if TYPE_CHECKING:
    from ..convert.checkpoint import Checkpoint
    from ..convert.verify import GgufHeads

HeadsArgument = Annotated[
    str,
    typer.Argument(
        metavar="HEADS", help="Folder, .safetensors file or Hugging Face id (user/repo).", show_default=False
    ),
]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE.gguf", help="A GGUF file.", show_default=False)]
OuttypeOption = Annotated[
    str,
    typer.Option("--outtype", help="Type of the wide weights: auto (as in the checkpoint), f32, f16, bf16 or q8_0."),
]
MeanTempOption = Annotated[
    float | None,
    typer.Option("--mean-temperature", help="Mean T of the heads, in (0, 2]; default: the checkpoint's, if stored."),
]
MeanTopPOption = Annotated[
    float | None,
    typer.Option("--mean-top-p", help="Mean P of the heads, in (0, 1]; default: the checkpoint's, if stored."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Check everything and say what would be written.")]


def convert(
    heads: HeadsArgument,
    base: Annotated[
        Path | None, typer.Option("--base", metavar="BASE.gguf", help="Base model; checked against, and fingerprinted.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT.gguf", help="Default: autodeco-<Base>-<Size>-v1.0.gguf here."),
    ] = None,
    outtype: OuttypeOption = "auto",
    mean_temperature: MeanTempOption = None,
    mean_top_p: MeanTopPOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Convert AutoDeco heads into a small GGUF that lies beside its base model.

    Example: autodeco-edge convert Jadeislaw/AutoDeco-R1-Distill-Qwen-7B --base DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf
    """
    from ..convert.checkpoint import read_checkpoint
    from ..convert.export import default_heads_name, write_heads

    info = _base_info(base)
    checkpoint = read_checkpoint(heads, n_embd=info.n_embd if info else None)
    _remark(checkpoint.notes)
    if info is None:
        _remark(["without --base the heads carry no fingerprint of their base model"])
    target = output or Path(default_heads_name(checkpoint, info))
    _report(
        write_heads(
            checkpoint,
            target,
            base=info,
            outtype=outtype,
            mean_temperature=mean_temperature,
            mean_top_p=mean_top_p,
            dry_run=dry_run,
        )
    )


def merge(
    heads: Annotated[
        str,
        typer.Argument(
            metavar="HEADS",
            help="Heads file (.gguf), folder, .safetensors file or Hugging Face id (user/repo).",
            show_default=False,
        ),
    ],
    base: Annotated[Path, typer.Option("--base", metavar="BASE.gguf", help="Base model to copy.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="MODEL.gguf", help="File to write.", show_default=False)
    ],
    outtype: OuttypeOption = "auto",
    mean_temperature: MeanTempOption = None,
    mean_top_p: MeanTopPOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Write one GGUF that holds the base model and its heads; stock llama.cpp loads it as the plain model.

    Example: autodeco-edge merge heads.gguf --base model-Q4_K_M.gguf -o model-autodeco-Q4_K_M.gguf
    """
    from ..convert.merge import merge_single_file

    _report(
        merge_single_file(
            _heads_of(heads, base),
            base,
            output,
            outtype=outtype,
            mean_temperature=mean_temperature,
            mean_top_p=mean_top_p,
            dry_run=dry_run,
        )
    )


def _heads_of(heads: str, base: Path) -> Checkpoint | GgufHeads:
    from ..convert.checkpoint import read_checkpoint
    from ..convert.verify import read_heads_gguf

    if heads.endswith(".gguf"):
        return read_heads_gguf(user_path(heads))
    checkpoint = read_checkpoint(heads, n_embd=_base_info(base).n_embd)
    _remark(checkpoint.notes)
    return checkpoint


def verify(heads: HeadsArgument, file: FileArgument) -> None:
    """Compare a converted or merged file with the checkpoint it was made from.

    Example: autodeco-edge verify heads/ autodeco-R1-Distill-Qwen-7B-v1.0.gguf
    """
    from ..convert.checkpoint import read_checkpoint
    from ..convert.verify import verify_file

    rows = verify_file(read_checkpoint(heads), file)
    for row in rows:
        cast = row.stored_type if row.source_type == row.stored_type else f"{row.source_type} to {row.stored_type}"
        say(f"{row.name}: {cast}, largest difference {row.max_error:.3g} (allowed {row.max_bound:.3g})")
    exact = all(row.max_error == 0 for row in rows)
    put(f"{file}: {len(rows)} tensors agree with {heads}, {'exactly' if exact else 'within the bounds of their types'}")


def _base_info(base: Path | None):
    """Identity of the base model, None without one."""
    if base is None:
        return None
    from ..convert.base import open_base

    file, info = open_base(base)
    file.close()
    return info


def _remark(notes) -> None:
    for note in notes:
        say(f"note: {note}")


def _report(written) -> None:
    """Tensors to stderr, the result line to stdout."""
    for name, type_name, shape in written.tensors:
        say(f"{name}: {type_name} {list(reversed(shape))}")
    means = (("mean T", written.means.temperature), ("mean P", written.means.top_p))
    known = "".join(f", {what} {value:g}" for what, value in means if value is not None)
    verb = "wrote" if written.written else "would write"
    put(f"{verb} {written.path}: {written.n_params} parameters for {written.arch}, {written.n_bytes} bytes{known}")
