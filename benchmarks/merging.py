"""Time merge jobs against the mergekit-yaml command that makes the same bits; print a table.

Three members and a base with FLAN-T5-small's shape (77 million parameters, untied head) are generated. Every run is a
separate process, ours and the command's in turn; each command's best wall-clock time and largest peak memory count.
`make bench` runs it. benchmarks/README.md has the figures with their machine.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow/scripts"))
MEMBERS = ["a", "b", "c"]
TWO: dict[str, object] = {"members": ["a", "b"]}
RECIPES: dict[str, dict[str, object]] = {
    "linear": {}, "slerp": {**TWO, "t": 0.4}, "nuslerp": TWO, "multislerp": {}, "karcher": {},
    "task_arithmetic": {"lambda": 0.5}, "ties": {"density": 0.3}, "dare_linear": {"density": 0.3},
    "dare_ties": {"density": 0.3}, "della": {"density": 0.3}, "della_linear": {"density": 0.3},
    "breadcrumbs": {"density": 0.3}, "breadcrumbs_ties": {"density": 0.3}, "model_stock": {}, "sce": {"select_topk": 0.3},
    "ram": {}, "ramplus_tl": {}, "nearswap": {**TWO, "t": 1e-4}, "arcee_fusion": TWO,
    "passthrough": {"members": ["a"], "scale": 0.5},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--make", type=Path, help="only make the models, in this folder")
    arguments = parser.parse_args()
    if arguments.make:
        make_models(arguments.make)
        return
    print(f"{'':<18}{'seconds':>10}{'mergekit-yaml':>15}{'ratio':>7}{'peak MB':>10}{'mergekit-yaml':>15}{'ratio':>7}")
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder, "models")
        # In a separate process, since a child's peak memory starts at its parent's size.
        subprocess.run([sys.executable, __file__, "--make", str(models)], check=True)
        for method in arguments.methods:
            ours, theirs = [], []
            for _ in range(arguments.repeats):
                out = Path(folder, "out")
                recipe = json.dumps(recipe_of(method))
                ours.append(measure([sys.executable, str(ROOT / "workflow/scripts/merge.py"), "--recipe", recipe,
                                     "--models", str(models), "--output", str(out)]))  # fmt: skip
                command = (out / "mergekit.yaml").read_text().splitlines()[0].split("   ")[0].split()[5:]
                theirs.append(measure([str(Path(sys.executable).with_name("mergekit-yaml")), str(out / "mergekit.yaml"),
                                       str(out / "theirs"), "--quiet", *command]))  # fmt: skip
                shutil.rmtree(out)
            seconds, peak = [[f(run[i] for run in runs) for runs in (ours, theirs)] for i, f in ((0, min), (1, max))]
            print(f"{method:<18}{seconds[0]:>10.2f}{seconds[1]:>15.2f}{seconds[0] / seconds[1]:>7.2f}"
                  f"{peak[0]:>10.0f}{peak[1]:>15.0f}{peak[0] / peak[1]:>7.2f}", flush=True)  # fmt: skip


def recipe_of(method: str) -> dict[str, object]:
    from mllm.experiment import merge_entries, recipes

    entry = merge_entries.METHODS[method].model_validate({"method": method, "members": MEMBERS, **RECIPES[method]})
    (recipe,) = recipes.expand(entry, list(entry.members), 17, "base")
    return recipe.canonical()


def make_models(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=32128, d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_heads=6, feed_forward_proj="gated-gelu",
        decoder_start_token_id=0, architectures=["T5ForConditionalGeneration"],
    )  # fmt: skip
    state = {
        k: v.clone() for k, v in T5ForConditionalGeneration(config).state_dict().items() if "embed_tokens" not in k
    }
    state["lm_head.weight"] = 0.05 * torch.randn_like(state["lm_head.weight"])
    for name in ("base", *MEMBERS):
        own = {k: v + 1e-3 * torch.randn_like(v) if name != "base" else v for k, v in state.items()}
        config.save_pretrained(folder / name)
        save_file(own, folder / name / "model.safetensors", metadata={"format": "pt"})


def measure(command: list[str]) -> tuple[float, float]:
    """Return wall-clock seconds and peak memory in megabytes of one process."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert process.stderr
    said = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed:\n{said}")
    return time.perf_counter() - begin, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
